"""One smart doorbell: it trains on its own pictures and sends nothing but a masked update."""
