"""The main server for gunicorn: `gunicorn --bind localhost:8000 --timeout 600 wsgi3:app`."""

from main_server.app import create_app

app = create_app()
