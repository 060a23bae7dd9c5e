"""Keeping an update costs the same however many are there, and those that come at once share a
transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event

from sec_agg.store.store import Store, Stored
from shared.errors import StorageFailed


def test_updates_that_come_at_once_share_transactions_and_are_all_kept(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.upload("a", federation.delta())
    store, write, begun = (
        federation.aggregator.store,
        type(federation.aggregator.store.database).write,
        [],
    )

    def slow(self: Any, *how: Any, **why: Any) -> Any:
        begun.append(threading.get_ident())
        time.sleep(0.05)
        return write(self, *how, **why)

    monkeypatch.setattr(type(store.database), "write", slow)
    kept: dict[str, bool] = {}

    def keep(name: str) -> None:
        kept[name] = store.keep_update("package", 1, Stored(name, "0" * 64, b"seed", "0" * 32), 5.0)

    threads = [threading.Thread(target=keep, args=(f"d{number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    assert kept == {f"d{number}": True for number in range(20)}
    assert len(store.updates("package", 1)) == 21
    assert len(begun) < 10


def test_error_of_a_shared_transaction_reaches_everybody_in_it(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.upload("a", federation.delta())
    store, errors, go = federation.aggregator.store, [], threading.Barrier(5)

    def full(*_: Any, **__: Any) -> Any:
        raise StorageFailed("It is full.")

    monkeypatch.setattr(type(store.database), "write", full)

    def keep(name: str) -> None:
        go.wait()
        try:
            store.keep_update("package", 1, Stored(name, "0" * 64, b"seed", "0" * 32), 5.0)
        except StorageFailed as error:
            errors.append(str(error))

    threads = [threading.Thread(target=keep, args=(f"d{number}",)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    assert len(errors) == 5
    assert store.keep_update("package", 1, Stored("b", "0" * 64, b"seed", "0" * 32), 5.0)


def statements_of(store: Store, work: Callable[[], object]) -> list[str]:
    """Return the SQL that is run while something is done."""
    run: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        run.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return run


def test_upload_costs_the_same_however_many_were_there(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = federation.aggregator.store
    federation.upload("a", federation.delta())
    rows: list[int] = []
    monkeypatch.setattr(Store, "updates", lambda *_: rows.append(1) or ())
    few = statements_of(store, lambda: federation.upload("b", federation.delta()))
    for number in range(50):
        store.keep_update("package", 1, Stored(f"d{number}", "0" * 64, b"seed", "0" * 32), 5.0)
    many = statements_of(store, lambda: federation.upload("c", federation.delta()))
    assert rows == []
    assert sum("FROM updates" in one or "INTO updates" in one for one in many) <= 3
    assert len(many) <= len(few)
    received = [
        line
        for line in federation.remembered("aggregator")
        if 'INTO "updates"' in line and "'c'" in line
    ]
    assert time.time() - float(received[0].rstrip(");").rsplit(",", 1)[1]) < 60
