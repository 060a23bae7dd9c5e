"""The doorbell that a device is: rings, events and their labels."""
