"""What the parties of a round must agree on: the plan, fixed point, masks, payloads."""
