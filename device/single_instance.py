"""One device, one process: a second one with the same folder is refused at start.

The lock is the kernel's (flock), held as long as the process lives, however it ends. The file
stays.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from shared.errors import SettingsError
from shared.storage.blobs import storage_errors

PATIENCE_S: Final = 10.0
"""A worker that gunicorn replaces is gone in less (`graceful_timeout`)."""


def claim_folder(
    name: str,
    folder: Path,
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[[], None]:
    """Claim a device's folder for this process.

    Args:
        name: The device's name, for the message.
        folder: Its folder; made if missing.
        patience_s: How long to wait for a process that is about to end, in seconds.
        sleep: How to wait.

    Returns:
        What gives the folder back, for a process that goes on living without being the device. The
        folder is claimed as long as this is kept.

    Raises:
        SettingsError: Another process has it, or this one claimed it already.
        StorageFailed: The folder cannot be used.
    """
    with storage_errors(f"The folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        file = (folder.resolve() / ".running").open("a+")
    deadline = time.monotonic() + patience_s
    while not _locked(file):
        if time.monotonic() > deadline:
            refusal = _refused(name, folder, file)
            file.close()
            raise refusal
        sleep(0.1)
    # The lock is what counts; the number is for the message that a second process gets.
    with storage_errors(f"The folder {folder}"):
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    return file.close


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refused(name: str, folder: Path, file: IO[str]) -> SettingsError:
    file.seek(0)
    return SettingsError(
        f"{name} runs already, as process {file.read(20) or 'unknown'}: it has the folder"
        f" {folder}.",
        kept="This second one was not started.",
        todo=(
            "Stop the first one; or start this one as another device, with a number or a"
            " DOORBELL_DEVICE_NAME of its own. A device has one worker (gunicorn --workers 1)."
        ),
    )
