"""Answers that several messages have."""

from __future__ import annotations

from typing import ClassVar

from shared.messages import Message


class Said(Message, frozen=True, forbid_unknown_fields=False):
    """A sentence for the operator of the party that asked; figures may stand beside it."""

    noun: ClassVar[str] = "answer"

    said: str


class Problem(Message, frozen=True, forbid_unknown_fields=False):
    """A refusal, as far as the party that asked reads it (RFC 9457)."""

    noun: ClassVar[str] = "problem"

    detail: str
