"""Doorbell pictures: reading anybody's folders, drawing the default ones, laying out public photos."""
