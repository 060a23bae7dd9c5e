"""Who has joined, and who is there."""
