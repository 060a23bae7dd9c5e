"""All of the device's SQL."""
