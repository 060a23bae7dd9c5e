"""`python -m federation` as a process: how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy  # starts commands

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]))
from types import SimpleNamespace
import federation.__main__ as command_line

def wait(_):
    print("waiting", flush=True)
    time.sleep(60)

command_line._command_line = lambda: SimpleNamespace(parse_args=lambda _: SimpleNamespace(run=wait))
sys.exit(command_line.main([]))
"""


@pytest.mark.parametrize("interrupt", ["default_int_handler", "SIG_IGN"])
def test_it_can_be_stopped_also_where_interrupts_are_ignored(interrupt: str) -> None:
    command = [sys.executable, "-c", PROGRAM, interrupt]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        assert (process.wait(20), process.stderr.read() if process.stderr else "") == (
            130,
            "Stopped.\n",
        )
