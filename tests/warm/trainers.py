"""A process that has imported TensorFlow and forks training children for a device from itself.

Importing TensorFlow takes longer than everything else in most tests of services together, and
nothing of it runs before its first use, so a child that was forked after the import is what `python
-m device.training.worker` is a moment later.

    trainers.py serve SOCKET  the process that forks
    trainers.py child SOCKET  what the device starts instead of the child: it hands its pipes over,
                              is in the child's place, and ends as the child ends

The child is in the device's process group: whoever kills all of the device kills it as well.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import sys
import time
from typing import NoReturn

PATIENCE_S = 300.0
WARM = (
    "device.training.worker",
    "device.training.training",
    "device.evaluation.metrics",
    "device.training.examples",
)


def serve(address: str) -> None:
    """Fork a child for everybody who connects, until standard input closes."""
    for module in WARM:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        while (
            sys.stdin not in select.select([door, sys.stdin], [], [])[0]
        ):  # whoever started this is there
            visitor, _ = door.accept()
            message, pipes, _, _ = socket.recv_fds(visitor, 64, 3)
            if os.fork() == 0:
                _look_after(visitor, int(message), pipes)
            visitor.close()
            for pipe in pipes:
                os.close(pipe)


def _look_after(visitor: socket.socket, group: int, pipes: list[int]) -> NoReturn:
    """Fork a child into a process group, wait for its end, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, group)
    child = os.fork()
    for number, pipe in enumerate(pipes):
        if child == 0:
            os.dup2(pipe, number)
        os.close(pipe)
    if child == 0:
        visitor.close()
        importlib.import_module("device.training.worker").main()
    _, status = os.waitpid(child, 0)
    visitor.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def be_child(address: str) -> NoReturn:
    """Be in the place of a child: hand over the pipes, and end as it ends."""
    with socket.socket(socket.AF_UNIX) as door:
        _connect(door, address)
        socket.send_fds(door, [str(os.getpgid(0)).encode()], [0, 1, 2])
        os.close(0)
        os.close(1)
        code = int(door.recv(64) or 1)
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def _connect(door: socket.socket, address: str) -> None:
    """Knock until somebody has imported TensorFlow and opens."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return door.connect(address)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    {"serve": serve, "child": be_child}[sys.argv[1]](sys.argv[2])
