"""The web processes start without a machine-learning framework, and the environment is read in few
places. Which room imports which is held by import-linter's contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy  # starts a process for each import

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shared", "dataset", "learning", "device", "sec_agg", "main_server", "federation")
SOURCES = [
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.parent.name != "migrations"
]
SHARED = [
    f"shared.{path.stem}"
    for path in sorted((ROOT / "shared").glob("*.py"))
    if path.stem != "__init__"
]
FRAMEWORKS = ("tensorflow", "keras")
MEASURING = ("sklearn", "matplotlib", "scipy")
SERVERS = ("sec_agg.app", "main_server.app")


def loaded_by(modules: list[str], home: Path) -> set[str]:
    """Return the top-level modules that a fresh process has after importing these."""
    program = (
        f"import sys, {', '.join(modules)}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    )
    environment = os.environ | {"DOORBELL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def reads_environment(source: Path) -> bool:
    tree = ast.parse((ROOT / source).read_text())
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    names = {
        node.attr for node in attributes if ast.unparse(node) != "request.environ"
    }  # a request's, not a process's
    names |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return bool(names & {"environ", "environb", "getenv", "putenv"})


@pytest.mark.parametrize(
    "modules", [*([name] for name in SERVERS), ["wsgi3", "wsgi4"], SHARED], ids=str
)
def test_servers_start_without_any_machine_learning(modules: list[str], tmp_path: Path) -> None:
    assert not loaded_by(modules, tmp_path) & {*FRAMEWORKS, *MEASURING, "cv2", "PIL", "torch"}


@pytest.mark.parametrize(
    "modules", [["device.app", "wsgi1", "wsgi2"], ["federation.round"]], ids=str
)
def test_device_apps_and_the_round_start_without_a_framework(
    modules: list[str], tmp_path: Path
) -> None:
    assert not loaded_by(modules, tmp_path) & {*FRAMEWORKS, *MEASURING}


def test_aggregator_process_does_not_load_the_other_services(tmp_path: Path) -> None:
    assert not loaded_by(["sec_agg.app"], tmp_path) & {
        "main_server",
        "device",
        "dataset",
        "federation",
    }


def test_fresh_process_does_show_what_it_imports(tmp_path: Path) -> None:
    assert {"device", "matplotlib"} <= loaded_by(["device.evaluation.plot_child"], tmp_path)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_environment_is_read_by_settings_and_where_a_process_is_started(source: Path) -> None:
    is_settings = source.stem == "settings" or source.parts[0] == "federation"
    starts_a_process = source.stem in ("gunicorn_hooks", "worker_client")
    assert is_settings or starts_a_process or not reads_environment(source)
