"""What the aggregator's page shows: how things stand, and that what it holds is noise to it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from markupsafe import Markup

from sec_agg.aggregation import Aggregator
from sec_agg.store.snapshot import Current, Sent
from shared.errors import DoorbellError
from shared.storage.blobs import BlobStore
from shared.web.charts import histogram

SUMS: Final = 20
BINS: Final = 16
READ: Final = 1 << 16
"""So many numbers of one update are looked at."""

SHOWN: Final = 24
_MARKS: Final = ("0", "1,073,741,824", "2,147,483,648", "3,221,225,472", "4,294,967,295")


@dataclass(frozen=True)
class Noise:
    """The beginning of one masked update: its first numbers, and how many of the first `count` are
    in each bin.
    """

    numbers: tuple[int, ...]
    counts: tuple[int, ...]
    count: int

    @property
    def expected(self) -> float:
        """How many numbers each bin would have if all values were equally frequent."""
        return self.count / len(self.counts)

    def chart(self) -> Markup:
        """Draw the counts."""
        told = (
            f"How many of {self.count:,} numbers of one masked update fall into each sixteenth of"
            f" all values: from {min(self.counts):,} to {max(self.counts):,}, where"
            f" {self.expected:,.0f} would be exactly even."
        )
        return histogram(
            "Numbers of one masked update by value", self.counts, told, _MARKS, self.expected
        )


def page(aggregator: Aggregator) -> dict[str, object]:
    """Return what the template shows."""
    standing = aggregator.store.standing(SUMS)
    held = [(each, update) for each in standing.rounds for update in each.sent if update.digest]
    shown = max(held, key=lambda one: one[1].at, default=None)
    return {
        "now": standing,
        "names": [each.detector for each in standing.rounds],
        "outlooks": {each.detector: outlook(each) for each in standing.rounds},
        "sizes": {each.detector: 4 * (each.vector_size) for each in standing.rounds},
        "noise": None if shown is None else _noise_of(aggregator.blobs, *shown),
        "shown": shown,
    }


def outlook(current: Current) -> str:
    """Return in one sentence what happens next with a round."""
    there, least = len(current.sent), current.min_cohort
    if current.delivered:
        return "The main server has the sum; the next round is waited for."
    if current.state == "summed":
        return (
            "The sum is made: “Send Aggregated Model to Main Server” hands it over, or a run does"
            " so by itself."
        )
    if current.state == "frozen":
        return (
            "Who is in the sum is fixed: “Aggregate Local Models” adds up, or a run does so by"
            " itself."
        )
    if there < least:
        return f"Waiting for updates: {there} of the {least} that are needed at least are here."
    return (
        f"{there} updates are here, and {least} are needed at least: “Aggregate Local Models” adds"
        " them up, or a run does so by itself when nobody else is waited for."
    )


def _noise_of(blobs: BlobStore, current: Current, update: Sent) -> Noise | None:
    """Return what an update looks like here; None if its bytes cannot be read just now."""
    with suppress(OSError, DoorbellError):
        return _read(blobs, update.digest, current.vector_size)
    return None


@lru_cache(maxsize=8)
def _read(blobs: BlobStore, digest: str, size: int) -> Noise:
    """Read the first numbers of a masked update, whose file ends in `size` little-endian uint32."""
    with blobs.path(digest).open("rb") as file:
        file.seek(-4 * size, 2)
        values = np.frombuffer(file.read(4 * min(size, READ)), "<u4")
    counts = np.bincount(values >> 28, minlength=BINS)
    return Noise(tuple(values[:SHOWN].tolist()), tuple(counts.tolist()), values.size)
