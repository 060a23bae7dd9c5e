"""What looks at a picture without TensorFlow."""
