"""The main server's repositories in tests: one call, in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from main_server.store.store import Connection, Store

Given = ParamSpec("Given")
Result = TypeVar("Result")


def read(
    store: Store,
    query: Callable[Concatenate[Connection, Given], Result],
    *args: Given.args,
    **values: Given.kwargs,
) -> Result:
    """Return what a query finds, in a transaction that only reads."""
    with store.read() as connection:
        return query(connection, *args, **values)


def write(
    store: Store,
    step: Callable[Concatenate[Connection, Given], Result],
    *args: Given.args,
    **values: Given.kwargs,
) -> Result:
    """Do one step in a transaction of its own, and return what it returns."""
    with store.write() as connection:
        return step(connection, *args, **values)
