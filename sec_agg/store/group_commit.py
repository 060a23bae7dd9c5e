"""Doing at once what several threads ask for at the same time, where it costs as much for many as
for one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batch(Generic[T, R]):
    """One piece of work for all who ask while another is being done; nobody waits for company.

    Whoever finds nobody at work does it for everybody who has asked by then. A commit that waits
    for the disk is shared in this way by all updates that arrived during the commit before.

    Args:
        work: Does it for several wishes, and returns as many results in the same order.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]]) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._waiting: deque[_Wish[T, R]] = deque()

    def do(self, what: T) -> R:
        """Have it done, and return the result; an error reaches everybody for whom the work was
        done.
        """
        mine: _Wish[T, R] = _Wish(what)
        self._waiting.append(mine)
        with self._turn:
            if not mine.done:
                self._do_for([self._waiting.popleft() for _ in range(len(self._waiting))])
        if mine.error is not None:
            raise mine.error
        return mine.results[0]

    def _do_for(self, wishes: list[_Wish[T, R]]) -> None:
        try:
            results = self._work([wish.what for wish in wishes])
            for wish, result in zip(wishes, results, strict=True):
                wish.results.append(result)
        except BaseException as error:  # passed on to each of them, in its own thread
            for wish in wishes:
                wish.error = error
        finally:
            for wish in wishes:
                wish.done = True


class _Wish(Generic[T, R]):
    """What one thread asks for, and what came of it."""

    def __init__(self, what: T) -> None:
        self.what = what
        self.results: list[R] = []
        self.error: BaseException | None = None
        self.done = False
