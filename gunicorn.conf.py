"""What every service runs with under gunicorn; the command line and WEB_CONCURRENCY win over it."""

import errno
import os
import signal
import socket
import sys
from contextlib import closing

from gunicorn import systemd
from gunicorn.errors import AppImportError

worker_class = "gthread"
threads = 64  # those that wait for work cost nothing; the aggregator, to which models are sent, is started with 8
timeout = 600
graceful_timeout = 5
keepalive = 30
control_socket_disable = True

# No address is longer, and a signed message has some twenty header fields.
limit_request_line = 2048
limit_request_fields = 64
limit_request_field_size = 8190

# X-Forwarded-* is believed in one place: the app, and only from as many proxies as DOORBELL_TRUSTED_PROXIES says.
forwarded_allow_ips = ""
secure_scheme_headers = {}


def on_starting(server):
    """Refuse to listen where other machines can reach a service that has no operator token, or where one listens.

    The imports stay in the master, so new code needs a restart: SIGHUP reloads settings only. They are few, as it has
    no use for the rest of what a worker needs.
    """
    from shared.addresses import check_bind  # noqa: PLC0415
    from shared.errors import SettingsError  # noqa: PLC0415
    from shared.settings import OperatorSettings  # noqa: PLC0415

    inherited = range(
        3, 3 + systemd.listen_fds(unset_environment=False)
    )  # by socket activation, which wins over --bind
    try:
        check_bind(inherited or server.cfg.address, OperatorSettings.read().token)
    except SettingsError as error:
        sys.exit(str(error))
    if not inherited and "GUNICORN_FD" not in os.environ:
        for address in server.cfg.address:
            _check_free(address)


def _check_free(address):
    if not isinstance(address, tuple):
        return  # a socket's path
    host, port = address[:2]
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                sys.exit(
                    f"Something listens on {host}:{port} already: a copy of this service may be running. "
                    "It was left alone. Stop it, or choose another address with --bind."
                )


def post_fork(server, worker):
    """Let a person read the sentence alone if the app cannot be made, and stop: trying again would not help."""
    from shared.errors import DoorbellError  # noqa: PLC0415

    load = worker.app.load

    def load_or_say_why():
        try:
            return load()
        except DoorbellError as error:
            raise AppImportError(str(error)) from error
        except OSError as error:
            raise AppImportError(
                f"The service cannot start: {error.filename or 'the disk'}: {error.strerror}. What was stored before "
                "is kept. Let this service's user own its folder, or name another with DOORBELL_HOME."
            ) from error

    worker.app.load = load_or_say_why


def post_worker_init(worker):
    """Start what the service does besides answering requests."""
    from shared.background import start_background  # noqa: PLC0415

    stop = start_background(worker.wsgi, worker.cfg.threads)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, _stopping(stop, signal.getsignal(number)))


def _stopping(stop, handler):
    """Return a signal handler that first ends what runs beside the requests, so that none is waited for in vain."""

    def handle(number, frame):
        stop.set()
        handler(number, frame)

    return handle
