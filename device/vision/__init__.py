"""From pictures to predictions, without TensorFlow."""
