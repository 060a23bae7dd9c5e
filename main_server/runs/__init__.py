"""Rounds that run automatically."""
