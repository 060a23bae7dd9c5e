"""Pauses between attempts that fail: drawn below a limit that doubles."""

from __future__ import annotations

import random

import pytest

from shared.transport.backoff import BackOff


def test_pauses_have_full_jitter_below_a_limit_that_doubles() -> None:
    drawn = []
    for seed in range(400):
        back_off = BackOff(random.Random(seed))
        drawn.append([back_off.next() for _ in range(9)])
    for limit, pauses in zip(
        [1, 2, 4, 8, 16, 32, 60, 60, 60], zip(*drawn, strict=True), strict=True
    ):
        assert 0 <= min(pauses) < 0.05 * limit
        assert 0.95 * limit < max(pauses) <= limit
        assert sum(pauses) / 400 == pytest.approx(limit / 2, rel=0.1)
