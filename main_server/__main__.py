"""`python -m main_server`: the main server under gunicorn on port 8000."""

from shared.web.serve import serve

serve("main_server.app:create_app()", default_port=8000)
