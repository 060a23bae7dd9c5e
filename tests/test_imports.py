"""Who imports what: the web processes start without a machine-learning framework, and the layers
hold.
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
PACKAGES = ("shared", "dataset", "device", "sec_agg", "main_server", "federation")
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
WEB = {
    "sec_agg/app.py",
    "main_server/app.py",
    "device/app.py",
    "shared/web/background.py",
    "shared/web/live.py",
}
WEB |= {
    "shared/web/app.py",
    "shared/web/signed_routes.py",
    "shared/web/instrumentation.py",
    "shared/web/operators.py",
}
WEB |= {
    "sec_agg/routes.py",
    "main_server/routes.py",
    "main_server/runs/routes.py",
    "device/routes.py",
}
WEB |= {
    "shared/web/spreadsheet.py",
    "main_server/dashboard/routes.py",
    "device/evaluation/routes.py",
}
WEB |= {"device/bell/routes.py"}
SQL = {
    "sec_agg/store/store.py",
    "sec_agg/store/snapshot.py",
    "sec_agg/store/tables.py",
    "device/store/store.py",
    "device/store/models.py",
    "device/store/trainings.py",
    "device/store/evaluations.py",
    "device/store/failures.py",
    "device/store/schedule.py",
    "device/store/rows.py",
    "device/store/tables.py",
    "device/store/events.py",
    "device/store/notifications.py",
    "shared/storage/database.py",
    "shared/storage/database_failures.py",
    "shared/storage/migration.py",
    "shared/storage/postgresql.py",
    "shared/storage/sqlite.py",
    "shared/security/nonces.py",
}
SQL |= {
    f"main_server/store/{path.name}"
    for path in (ROOT / "main_server" / "store").glob("*.py")
    if path.stem not in ("__init__", "records")
}
ENVIRONMENT = {
    "shared/settings.py",
    "shared/web/gunicorn_hooks.py",
    "device/training/worker_client.py",
}


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


def imports_of(source: Path) -> set[str]:
    """Return the top-level modules that a file imports, wherever in it."""
    tree, found = ast.parse((ROOT / source).read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


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
def test_flask_sql_and_the_environment_stand_where_they_belong(source: Path) -> None:
    name, imported = source.as_posix(), imports_of(source)
    assert "flask" not in imported or name in WEB
    assert "sqlalchemy" not in imported or name in SQL - {"shared/security/nonces.py"}
    assert "sqlite3" not in imported or name in SQL
    assert not reads_environment(source) or name in ENVIRONMENT or name.startswith("federation/")


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_imports_point_down_and_services_do_not_import_one_another(source: Path) -> None:
    above = {
        "shared": set(PACKAGES) - {"shared"},
        "dataset": {"device", "sec_agg", "main_server", "federation"},
        "device": {"sec_agg", "main_server", "federation"},
        "sec_agg": {"device", "main_server", "federation"},
        "main_server": {"device", "sec_agg", "federation"},
        "federation": set(),
    }
    assert not imports_of(source) & above[source.parts[0]]


def test_files_that_may_do_so_do_import_flask_and_sql() -> None:
    assert all("flask" in imports_of(Path(name)) for name in WEB)
    assert all({"sqlalchemy", "sqlite3"} & imports_of(Path(name)) for name in SQL)
    assert all(reads_environment(Path(name)) for name in ENVIRONMENT)
