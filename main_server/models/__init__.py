"""Versions of the global model."""
