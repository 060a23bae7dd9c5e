"""Server strategies, one file each."""
