"""Services and training children that are there in a moment, for tests that are not about how they
start.

`tests/e2e/test_processes.py`, `test_readme.py`, `test_demo.py` and `test_observability.py` start
them as people do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
# One thread each: many are up at a time, and what they compute is small.
QUIET = {"OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def _start(
    program: str, *arguments: str, stdout: int | None = None, stderr: int | None = None
) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | QUIET
    command = [sys.executable, str(HERE / program), *arguments]
    # A group of its own, and the session of the tests: only so may a child be put into the group of
    # its device.
    return subprocess.Popen(
        command,
        text=True,
        cwd=PROJECT,
        env=environment,
        process_group=0,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
    )


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(60)


@dataclass
class Trainers:
    """The process that training children are forked from, see `trainers.py`; started when somebody
    asks for one.
    """

    address: Path
    process: subprocess.Popen[str] | None = None

    def listening(self) -> str:
        """Return where it listens, or soon will: who connects knocks until somebody is there."""
        if self.process is None:
            self.process = _start(
                "trainers.py", "serve", str(self.address), stderr=subprocess.DEVNULL
            )
        return str(self.address)

    @property
    def command(self) -> tuple[str, ...]:
        """What a device starts as its training child."""
        return (sys.executable, "-S", str(HERE / "trainers.py"), "child", self.listening())

    def close(self) -> None:
        """End it; its children are those of their devices."""
        if self.process is not None:
            _end(self.process)


@dataclass
class Nursery:
    """The process that services are born from, see `nursery.py`, and that of their training
    children.
    """

    trainers: Trainers
    process: subprocess.Popen[str] = field(
        default_factory=lambda: _start("nursery.py", stdout=subprocess.PIPE)
    )

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Start a gunicorn and return its process id, which is also that of its group."""
        assert self.process.stdin is not None and self.process.stdout is not None
        wanted = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """Kill all that came from it."""
        _end(self.process)
