"""What the page of events shows, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from device.bell.labelling import parse_number
from device.bell.ring import Bell
from device.camera.camera import Camera

SHOWN: Final = 24
"""Events on one page."""

Word = Literal["labelled", "new"]
_WORDS: Final[Mapping[str, Word]] = {"labelled": "labelled", "new": "new"}


@dataclass(frozen=True)
class Filter:
    """Which events are shown.

    Attributes:
        detector: Only those in which this one was detected, or labelled; any if empty.
        word: "labelled", "new", or None for both.
        before: Only those with a smaller number.
    """

    detector: str
    word: Word | None
    before: int | None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Filter:
        """Read a query; what is not valid filters nothing."""
        return cls(
            detector=query.get("detector", ""),
            word=_WORDS.get(query.get("word", "")),
            before=parse_number(query.get("before", "")),
        )

    @property
    def labelled(self) -> bool | None:
        """Whether only labelled events are shown, or only others; None for both."""
        return None if self.word is None else self.word == "labelled"


def events_page(bell: Bell, camera: Camera | None, which: Filter) -> dict[str, object]:
    """Return what `events.html` is to show.

    Args:
        bell: The doorbell.
        camera: Its camera, or None.
        which: The filter.
    """
    known = bell.device.detectors()
    detector = which.detector if which.detector in known else None
    # One more than is shown says whether there are older ones.
    events = bell.events.events(SHOWN + 1, detector, which.labelled, which.before)
    count, size = bell.events.size()
    chosen = {"detector": detector, "word": which.word}
    query = "&".join(f"{name}={value}" for name, value in chosen.items() if value)
    older = None
    if len(events) > SHOWN:
        oldest = f"before={events[SHOWN - 1].id}"
        older = f"/events?{query}&{oldest}" if query else f"/events?{oldest}"
    return {
        "events": events[:SHOWN],
        "older": older,
        "detectors": known,
        "chosen": chosen,
        "count": count,
        "size": size,
        "bell": bell,
        "camera": camera,
        "here": f"/events?{query}" if query else "/events",
    }
