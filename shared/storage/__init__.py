"""Rows in SQLite or PostgreSQL, bytes in files or S3."""
