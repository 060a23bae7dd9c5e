"""The tutorial's curl transcripts, executed as they stand, in both topologies."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeFederation

PROJECT = Path(__file__).resolve().parents[2]
TUTORIAL = PROJECT / "docs" / "tutorials" / "first-round-by-hand.md"

PORTS = {"main": 8000, "device1": 8001, "device2": 8002, "aggregator": 8003}
NUMBER = re.compile(r"\d[\d.,]*%?")


def _transcript(topology: str) -> list[tuple[str, str]]:
    text = TUTORIAL.read_text()
    block = re.search(rf"<!-- transcript: {topology} -->\n```console\n(.*?)```", text, re.DOTALL)
    assert block, f"{TUTORIAL.name} has no {topology} transcript"
    parts = re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]
    return [(command, answer) for command, answer in (part.split("\n", 1) for part in parts)]


def _shape(answer: str) -> str:
    """Return an answer with every number replaced: accuracies and seconds are the machine's."""
    return NUMBER.sub("N", answer)


@pytest.mark.parametrize("topology", ["secure", "direct"])
def test_the_curl_transcript_works_as_it_stands(
    topology: str, make_federation: MakeFederation, make_cold_federation: MakeFederation
) -> None:
    services = ["main", "device1", "device2"] + (["aggregator"] if topology == "secure" else [])
    make = (
        make_cold_federation if topology == "secure" else make_federation
    )  # both are one, once they are up
    federation = make(*services, DOORBELL_TOPOLOGY=topology)
    transcript = _transcript(topology)
    assert len(transcript) >= 6
    for command, expected in transcript:
        here = command
        for service, port in PORTS.items():
            here = here.replace(f"localhost:{port}", f"localhost:{federation.ports[service]}")
        run = subprocess.run(
            ["bash", "-c", f"{here} -sS --fail-with-body"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{command}\n{run.stdout}{run.stderr}"
        assert _shape(run.stdout) == _shape(expected), command
