"""What every service runs with under gunicorn; the command line and WEB_CONCURRENCY win over it."""

worker_class = "gthread"
threads = 8
timeout = 600
graceful_timeout = 5
keepalive = 30
control_socket_disable = True
