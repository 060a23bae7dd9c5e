"""Pauses between attempts that fail. Every party uses it."""

from __future__ import annotations

import random
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


class BackOff:
    """Pauses with full jitter: anything from nothing to a limit, which doubles from one second to a
    minute.

    Full jitter, so that many devices do not come back all at once when a server does.

    Args:
        rng: Draws the pauses.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._limit = FIRST_PAUSE_S

    def next(self) -> float:
        """Return the next pause, in seconds."""
        pause = self._rng.uniform(0.0, self._limit)
        self._limit = min(2 * self._limit, LONGEST_PAUSE_S)
        return pause

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._limit = FIRST_PAUSE_S
