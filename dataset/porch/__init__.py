"""Draws the default porch-camera pictures."""
