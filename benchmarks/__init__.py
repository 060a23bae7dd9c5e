"""The figures that the project promises, measured and printed: `make bench`."""
