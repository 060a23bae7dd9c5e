"""One line of the report: what was measured, what came out, what was to be reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured figure; `reached` is None where there is no target, only something to tell."""

    what: str
    measured: str
    target: str = ""
    reached: bool | None = None

    def line(self) -> str:
        """Return the figure as a line of text."""
        verdict = {True: "reached", False: "MISSED", None: ""}[self.reached]
        return f"  {self.what:<58} {self.measured:>34}   {self.target:<34} {verdict}".rstrip()
