"""What could go wrong before anything is started, each as one clear sentence."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from shared.errors import DatasetError, DoorbellError

NEEDED_BYTES = 300 << 20


class NotReady(DoorbellError):
    """Something stands in the way of starting."""

    slug = "not-ready"

    def __init__(self, happened: str, todo: str) -> None:
        super().__init__(happened, kept="Nothing was started.", todo=todo)


def check_ports(ports: Mapping[str, int]) -> None:
    """Refuse if a port is taken.

    Args:
        ports: What is to listen, to where.

    Raises:
        NotReady: Names the port and what wants it.
    """
    for service, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                raise NotReady(
                    f"Port {port} is in use, and the {service} needs it.",
                    f"Stop what listens there (ss -ltnp 'sport = :{port}' shows it), then "
                    "try again.",
                ) from error


def check_disk(folder: Path, needed_bytes: int = NEEDED_BYTES) -> None:
    """Refuse if `folder` cannot be written, or its disk has less than `needed_bytes` free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise NotReady(
            f"{folder} cannot be written: {error.strerror}.", "Free or fix it, then try again."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise NotReady(
            f"The disk of {folder} has {free >> 20} MB free, and this needs "
            f"{needed_bytes >> 20} MB.",
            "Free some space, then try again.",
        )


def check_pictures(root: Path, clients: tuple[str, ...]) -> tuple[str, ...]:
    """Return the detectors that all clients have pictures for.

    Raises:
        DatasetError: The folder is missing, empty, or laid out otherwise.
        NotReady: There is no detector that all of them have.
    """
    from dataset import folders  # noqa: PLC0415 - decoding pictures is for who has some

    try:
        folders.check(root)
    except DatasetError as error:
        raise NotReady(error.happened, error.todo) from error
    common = set.intersection(*(set(folders.detectors(root, client)) for client in clients))
    if not common:
        raise NotReady(
            f"No detector in {root} has pictures of {' and of '.join(clients)}.",
            f"Lay them out as {root}/<detector>/{clients[0]}/train/<detector>, and so on.",
        )
    return tuple(sorted(common))
