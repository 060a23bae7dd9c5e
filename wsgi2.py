"""Device 2 for gunicorn: `gunicorn --bind localhost:8002 --timeout 600 wsgi2:app`."""

from device.app import create_app

app = create_app(2)
