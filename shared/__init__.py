"""What two parties must agree on: messages, arithmetic, masks, settings, and the shell of every web
app.
"""

__version__ = "0.1.0"
