"""How good the models are on this device."""
