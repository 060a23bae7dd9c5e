"""Draws plots in a process of its own.

A round needs no plot, so its steps draw none. matplotlib takes longer to import than to draw, and
a web process does not import it: `python -m device.evaluation.plot_child` reads what is to be drawn
from its standard input, writes a PNG, and ends. It does not wait for a training that is going on.
"""

from __future__ import annotations

import json
import logging
import subprocess  # nosec B404
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from shared.errors import DoorbellError

_COMMAND: Final = (sys.executable, "-m", "device.evaluation.plot_child")
_TIMEOUT_S: Final = 120.0  # matplotlib's first start on a machine builds its list of fonts
_log = logging.getLogger(__name__)


class PlotFailed(DoorbellError):
    """A plot that could not be drawn; what it would show is kept."""

    slug = "plot-failed"


class Drawing:
    """Draws plots in short-lived processes, one at a time; from any thread."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def draw(self, what: Mapping[str, Any]) -> bytes:
        """Return a PNG.

        Args:
            what: `kind`, "training" or "comparison"; `detector`; and `history` or `report`.

        Raises:
            PlotFailed: The process ended otherwise.
        """
        # A page asks for all its pictures at once; a small device has memory for one matplotlib.
        with self._one_at_a_time:
            try:
                run = subprocess.run(  # nosec B603 # a fixed command, no shell
                    _COMMAND,
                    input=json.dumps(what).encode(),
                    stdout=subprocess.PIPE,
                    timeout=_TIMEOUT_S,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                _log.warning("A plot could not be drawn: %s", error)
                raise PlotFailed(
                    f"The plot of {what['detector']} could not be drawn.",
                    kept="Its numbers are kept.",
                    todo="The device's log says why; matplotlib has to be installed.",
                ) from error
        return run.stdout
