"""`python -m sec_agg`: the secure aggregator under gunicorn on port 8003."""

from shared.serve import serve

serve("sec_agg.app:create_app()", default_port=8003)
