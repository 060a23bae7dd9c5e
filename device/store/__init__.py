"""What a device remembers: its tables, and everything that reads and writes them."""
