"""A device that looks and answers needs no more than `requirements-edge.txt` names."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RING = """
import sys
for name in sys.argv[2:]:
    sys.modules[name] = None  # as if it were not installed
import cv2, numpy, psutil
from device.app import create_app
picture = cv2.imencode(".jpg", numpy.zeros((72, 128, 3), numpy.uint8))[1].tobytes()
client = create_app(1).test_client()
answer = client.post("/ring", data=picture, content_type="image/jpeg", headers={"Host": "localhost"})
assert answer.status_code == 200, answer.text
assert client.get("/events", headers={"Host": "localhost"}).text.count("<article") == 1
from device.vision.embedding import Embedder
print(psutil.Process().memory_info().rss / 1e6)
"""


def pinned(name: str) -> set[str]:
    return {
        line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")
    }


@pytest.mark.heavy
def test_device_rings_with_what_the_edge_requirements_name(tmp_path: Path) -> None:
    everything, edge = pinned("requirements.txt"), pinned("requirements-edge.txt")
    assert edge < everything
    missing = {line.partition("==")[0].partition("[")[0] for line in everything - edge}
    assert {"tensorflow-cpu", "keras", "scikit-learn", "matplotlib"} <= missing
    blocked = [
        module
        for module, owners in packages_distributions().items()
        if {one.replace("_", "-") for one in owners} <= missing
    ]
    assert {"tensorflow", "keras", "sklearn", "matplotlib"} <= set(blocked)
    environment = os.environ | {"DOORBELL_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", RING, "-", *blocked],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 250
