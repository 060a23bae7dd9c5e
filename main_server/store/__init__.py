"""All of the main server's SQL."""
