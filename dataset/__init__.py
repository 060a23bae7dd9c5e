"""Doorbell pictures: anybody's folders, the default drawings, public photos."""
