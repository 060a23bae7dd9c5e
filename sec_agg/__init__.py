"""The secure aggregator: adds masked updates that it cannot read."""
