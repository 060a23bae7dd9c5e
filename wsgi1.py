"""Device 1 for gunicorn: `gunicorn --bind localhost:8001 --timeout 600 wsgi1:app`."""

from device.app import create_app

app = create_app(1)
