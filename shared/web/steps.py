"""The operator's steps: one verb, done for each detector, summed up in plain sentences.

A step without `?detector=` does every detector it can: one that is not ready says why and holds
nothing up. The whole step is refused only where nothing was done, and fails where anything failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from shared.errors import Cancelled, DoorbellError, OutOfOrder


@dataclass(frozen=True)
class Done:
    """What a verb did for one detector: a sentence, and the figures behind it."""

    said: str
    figures: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a step answers: HTTP status, plain sentences, and the same as data."""

    status: int
    said: str
    data: Mapping[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the step was done."""
        return self.status < 400


def do_each(detectors: Iterable[str], verb: Callable[[str], Done], nothing: str) -> Answer:
    """Do `verb` for every detector and put the answers together.

    Args:
        detectors: Names; none at all is refused with `nothing`.
        verb: Does one detector; raises `OutOfOrder` where that one is not ready, and `Cancelled`
            where its owner ended it: then the rest is not begun.
        nothing: What is missing where there is no detector, and what to do.
    """
    sentences: list[str] = []
    data: dict[str, object] = {}
    statuses: list[int] = []
    for detector in detectors:
        try:
            done = verb(detector)
        except DoorbellError as error:
            said = str(error)
            status = int(error.status)
            figures = error.problem()
            is_last = isinstance(error, Cancelled)
        else:
            said = done.said
            status = 200
            figures = dict(done.figures)
            is_last = False
        sentences.append(f"{detector}: {said}")
        data[detector] = {"status": status, "said": said} | figures
        statuses.append(status)
        if is_last:
            break
    if not statuses:
        return Answer(int(OutOfOrder.status), nothing)
    return Answer(_overall(statuses), "\n".join(sentences), {"detectors": data})


def each(
    names: Callable[[], Iterable[str]], verb: Callable[[str], Done], nothing: str
) -> Callable[[str | None], Answer]:
    """Return the step that does `verb` for the detector that is picked, or for all.

    Args:
        names: Returns all detectors, as there are when the step is done.
        verb: As for `do_each`, and so is `nothing`.
        nothing: What is missing where there is no detector.
    """
    return lambda picked: do_each((picked,) if picked else names(), verb, nothing)


def _overall(statuses: list[int]) -> int:
    """Failures outweigh what was done, and what was done outweighs what was not ready."""
    not_ready = int(OutOfOrder.status)
    failures = [status for status in statuses if status not in (200, not_ready)]
    if failures:
        return max(failures)
    return 200 if 200 in statuses else not_ready
