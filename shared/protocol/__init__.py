"""Every JSON message between the services, declared once."""
