"""What the modules with commands of `python -m federation` share."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def clock(seconds: float) -> str:
    """Return a time, given in seconds since the epoch, as people read it here; nothing for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
