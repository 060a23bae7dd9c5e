"""The secure aggregator for gunicorn: `gunicorn --bind localhost:8003 --timeout 600 wsgi4:app`."""

from sec_agg.app import create_app

app = create_app()
