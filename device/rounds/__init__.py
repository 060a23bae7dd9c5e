"""The device's part in rounds."""
