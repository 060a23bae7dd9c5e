"""What a device no longer needs goes: all but the newest trainings, and the models that nothing
starts from.
"""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import suppress
from typing import Final

from device.context import Device
from shared.errors import StorageFailed

KEPT_TRAININGS: Final = 20
_LEFT_OVER_S = 86400.0  # no training takes a day
_log = logging.getLogger(__name__)


def tidy(device: Device, grace_s: float = 3600.0) -> int:
    """Forget old trainings, and remove the blobs that are not needed any more.

    What stays: the last trainings of each detector with plot, local model and update, the models in
    force and on trial, and the model that the newest training started from.

    Args:
        device: The device.
        grace_s: A blob stays so many seconds after it was put: its row may be on its way.

    Returns:
        How many bytes were freed; a disk that refuses is logged, and asked again after the next
        training.
    """
    for folder in device.settings.folder.glob("training-*"):  # of a process that was killed
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _LEFT_OVER_S:
                shutil.rmtree(folder, ignore_errors=True)
    try:
        return device.blobs.prune(device.store.forget_old(KEPT_TRAININGS), grace_s)
    except StorageFailed as error:
        _log.warning("Old trainings could not be removed. %s", error)
        return 0
