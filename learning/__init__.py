"""What a round computes, in numpy alone: no I/O, no framework."""
