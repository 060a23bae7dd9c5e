"""How services reach one another."""
