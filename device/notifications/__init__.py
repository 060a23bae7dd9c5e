"""How the owner is notified: one file a channel."""
