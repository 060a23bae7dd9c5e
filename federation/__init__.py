"""The whole federation from one terminal."""
