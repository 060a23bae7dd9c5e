"""A service that is killed once, at a chosen point: gunicorn serves `fragile:app` instead of its app.

What it serves is the real app; only the one function, transaction or answer that the point names is
wrapped. Nothing in the project knows of it. What a service does besides answering requests is
started only where rounds are to run by themselves; elsewhere nothing comes to the point but the
step. The same file, run as a program, is a training child with such a point in it.

Environment:
    KILL_APP         What is served, "wsgi3:app".
    KILL_POINT       Where: "module:Class.method:moment" or "/address:moment"; "#2" behind it is
                     the second time. Without it, nobody is killed.
    KILL_WHOM        "service": the whole process group, that is gunicorn's master, its workers
                     and the training child;
                     "process": the process that comes to the point, and nothing else.
    KILL_MARK        A file that is made just before the kill. Where it is there already, nobody
                     is killed any more.
    KILL_BACKGROUND  Where it is set, the service also does what it does besides answering requests.
    KILL_TRAINERS    Where `trainers.py` listens, whose children train; without it, children of
                     the device's own.

Moments of a function:
    before, after   before it is called, after it has returned
    commit          within it, when all is written to the database and nothing is committed
    temporary       within it, when a file is written beside its place and not renamed
    renamed         within it, when the file is renamed and the folder not yet synced
    progress        of a training: after a batch
Moments of an address:
    arrival         the request has come, and nothing has seen it
    answer          the answer is made, and no byte of it is sent
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Trap:
    """Kills at the n-th time that it is sprung, unless the mark is there."""

    def __init__(self, count: int, whom: str, mark: Path) -> None:
        self._count, self._whom, self._mark = count, whom, mark
        self._times = itertools.count(1)
        self._here = threading.local()

    def spring(self) -> None:
        """Leave the mark and kill, if it is time."""
        if next(self._times) != self._count:
            return
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        if self._whom == "service":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # not one step further while the signal is on its way

    def inside(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function; `spring_inside` works in this thread meanwhile."""
        self._here.called = True
        try:
            return function(*args, **kwargs)
        finally:
            self._here.called = False

    def spring_inside(self, *_: object) -> None:
        """Spring if this thread is inside the function."""
        if getattr(self._here, "called", False):
            self.spring()


def set_trap(place: str, moment: str, trap: Trap) -> None:
    """Wrap what `place` names: "module:Class.method", or "module:function" in a transaction."""
    module, _, path = place.partition(":")
    if "." not in path:
        _set_trap_in_transaction(module, path, moment, trap)
        return
    class_name, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), class_name)
    original = getattr(owner, method)

    @functools.wraps(original)
    def fragile(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            trap.spring()
        result = trap.inside(original, *args, **kwargs)
        if moment == "after":
            trap.spring()
        return result

    def fragile_training(*args: Any) -> Any:
        *others, on_progress = args

        def then_spring(progress: object) -> None:
            on_progress(progress)
            trap.spring()

        return original(*others, then_spring)

    wrapped = fragile_training if moment == "progress" else fragile
    bound = isinstance(inspect.getattr_static(owner, method), classmethod)
    setattr(owner, method, staticmethod(wrapped) if bound else wrapped)
    if moment == "commit":
        event.listen(Engine, "commit", trap.spring_inside)
    elif moment in ("temporary", "renamed"):
        _set_trap_at_rename(moment, trap)


def _set_trap_in_transaction(module: str, name: str, moment: str, trap: Trap) -> None:
    """Wrap a function that takes a connection, wherever it is imported; its caller commits.

    So "commit" and "after" are those of the transaction in which it was called.
    """
    original = getattr(importlib.import_module(module), name)
    here = threading.local()

    @functools.wraps(original)
    def fragile(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            trap.spring()
        here.called = True
        return original(*args, **kwargs)

    for loaded in list(sys.modules.values()):
        for attribute, value in list(vars(loaded).items()):
            if value is original:
                setattr(loaded, attribute, fragile)

    store = importlib.import_module("main_server.store.store").Store
    begin = store.write

    @contextlib.contextmanager
    def write(self: Any, alone: bool = True) -> Iterator[Any]:
        here.called = False
        with begin(self, alone) as connection:
            yield connection
            if here.called and moment == "commit":
                trap.spring()
        if here.called and moment == "after":
            trap.spring()

    store.write = write


def _set_trap_at_rename(moment: str, trap: Trap) -> None:
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if moment == "temporary":
            trap.spring_inside()
        renamed = rename(self, target)
        if moment == "renamed":
            trap.spring_inside()
        return renamed

    Path.replace = replace  # type: ignore[method-assign,assignment]


def with_trap(app: WsgiApp, address: str, moment: str, trap: Trap) -> WsgiApp:
    """Return the app with a trap at one of its addresses, or at those below it."""

    def fragile(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        here = f"{environ['PATH_INFO']}/".startswith(f"{address}/")
        if here and moment == "arrival":
            trap.spring()
        body = app(
            environ, start_response
        )  # gunicorn sends the header with the first bytes of the body
        if here and moment == "answer":
            trap.spring()
        return body

    return fragile


def _point() -> tuple[str, str, Trap]:
    """Return the place, the moment and the trap that the environment describes."""
    point, _, count = os.environ["KILL_POINT"].partition("#")
    place, _, moment = point.rpartition(":")
    return (
        place,
        moment,
        Trap(int(count or 1), os.environ["KILL_WHOM"], Path(os.environ["KILL_MARK"])),
    )


def _serve() -> Any:
    place, moment, trap = _point() if "KILL_POINT" in os.environ else ("", "", None)
    in_child = place.startswith("device.training.training:")
    if in_child:
        _train_by(sys.executable, __file__)
    if trap and not in_child and not place.startswith("/"):
        set_trap(place, moment, trap)
    module, _, name = os.environ["KILL_APP"].partition(":")
    served = getattr(importlib.import_module(module), name)
    if trap and place.startswith("/"):
        served.wsgi_app = with_trap(served.wsgi_app, place, moment, trap)
    return (
        served if "KILL_BACKGROUND" in os.environ else served.wsgi_app
    )  # of the app itself the rest is started


def _train_by(*command: str) -> None:
    """Let the device start this instead of its training child."""
    trainer = importlib.import_module("device.training.worker_client").Trainer
    importlib.import_module("device.context").Trainer = functools.partial(trainer, command=command)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    set_trap(*_point())
    importlib.import_module("device.training.worker").main()
else:
    app = _serve()
