"""Backup, restore, upgrade."""
