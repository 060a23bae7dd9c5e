"""The main server's half of a round."""
