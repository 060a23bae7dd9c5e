"""The TensorFlow side: the training child and its handle."""
