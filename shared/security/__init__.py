"""Keys, signatures, joining, and who may call what."""
