"""`doorbell`: one tree of commands, which starts fast and says in a sentence what it cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from federation import cli, extras
from federation.commands import GROUPS, MODULES, PROGRAMS
from federation.preflight import NotReady

PROJECT = Path(__file__).resolve().parents[2]
COMMANDS = [name for helps in GROUPS.values() for name in helps]
HEAVY = {
    "tensorflow",
    "keras",
    "flask",
    "sqlalchemy",
    "cv2",
    "matplotlib",
    "requests",
    "rich",
    "numpy",
}


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_overview_lists_every_command_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from federation.cli import main; main(['--help']); "
        "print(*sys.modules, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert all(f"  {name} " in run.stdout for name in COMMANDS)
    assert not {name.partition(".")[0] for name in run.stderr.split()} & HEAVY


def test_every_command_belongs_to_one_module() -> None:
    assert sorted(COMMANDS) == sorted(
        [*PROGRAMS, *(name for names in MODULES.values() for name in names)]
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_describes_itself_under_its_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = help_of(capsys, name)
    assert said.startswith(f"usage: doorbell {name} ") and "-h, --help" in said


@pytest.mark.parametrize("module", MODULES)
def test_a_module_adds_the_commands_that_the_tree_names(module: str) -> None:
    parser = cli.tree("doorbell", [module])
    (commands,) = (action for action in parser._actions if action.choices)
    assert list(commands.choices or ()) and set(commands.choices or ()) == set(MODULES[module])


def test_python_dash_m_federation_has_every_command_but_the_programs() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "federation", "--help"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("usage: python -m federation ")
    assert [name for name in COMMANDS if f"    {name} " not in run.stdout] == list(PROGRAMS)


def test_programs_take_their_own_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(capsys, "device", "export").startswith("usage: doorbell device export ")
    said = help_of(capsys, "dataset")
    assert said.startswith("usage: doorbell dataset ") and all(
        f"    {name} " in said for name in ("draw", "fetch")
    )


def test_without_a_command_the_overview_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().err == cli.overview() + "\n"


@pytest.mark.parametrize(
    ("name", "guess"), [("rond", "Did you mean doorbell round? "), ("xyz", "")]
)
def test_an_unknown_command_is_named(
    name: str, guess: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name]) == 2
    assert (
        capsys.readouterr().err
        == f"Unknown command: {name}. {guess}doorbell --help lists the commands.\n"
    )


@pytest.mark.parametrize(
    ("words", "variables", "address"),
    [
        (["main-server"], {}, "localhost:8000"),
        (["main-server"], {"PORT": "8800", "DOORBELL_BIND": "127.0.0.1"}, "127.0.0.1:8800"),
        (["main-server", "--bind", "[::1]:80"], {"PORT": "8800"}, "[::1]:80"),
        (["aggregator"], {"PORT": "8800"}, "localhost:8003"),
        (
            ["aggregator"],
            {"DOORBELL_AGGREGATOR_PORT": "8803", "DOORBELL_BIND": "[::]"},
            "[::]:8803",
        ),
        (["device"], {"DOORBELL_DEVICE1_PORT": "8801"}, "localhost:8801"),
        (["device", "--id", "3"], {"DOORBELL_DEVICE1_PORT": "8801"}, "localhost:8004"),
        (["device", "--id", "3"], {"DOORBELL_DEVICE3_PORT": "8803"}, "localhost:8803"),
    ],
)
def test_a_service_listens_where_the_variables_say(
    words: list[str], variables: dict[str, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(BaseException):
        pass

    def execv(_: str, command: list[str]) -> None:
        started.extend(command)
        raise Replaced

    started: list[str] = []
    monkeypatch.setattr(os, "execv", execv)
    for name in ("PORT", "DOORBELL_BIND"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Replaced):
        cli.main(words)
    assert started[started.index("--bind") + 1] == address
    assert started[started.index("--config") + 1] == "python:shared.web.gunicorn_hooks"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DOORBELL_BIND", "localhost:80"), ("PORT", "0"), ("PORT", "http"), ("DOORBELL_BIND", "a b")],
)
@pytest.mark.parametrize(
    "command", [["-m", "main_server"], ["-m", "federation.cli", "main-server"]], ids=" ".join
)
def test_an_address_that_cannot_be_is_named_before_anything_starts(
    command: list[str], variable: str, value: str
) -> None:
    environment = {**os.environ, variable: value}
    run = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1 and run.stderr.startswith(f"{variable} cannot be '{value}': ")


def test_a_package_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    assert cli.guarded(run) == 1
    assert capsys.readouterr().err.startswith(
        "This command needs cv2, which is not installed. Install it from a "
    )


def test_a_module_of_ours_that_is_missing_is_a_mistake_of_ours() -> None:
    def run() -> int:
        raise ModuleNotFoundError("No module named 'shared.nothing'", name="shared.nothing")

    with pytest.raises(ModuleNotFoundError):
        cli.guarded(run)


@pytest.fixture
def distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution that requires what this environment has, and what nobody has."""
    requires = [
        "flask==3.1.3",
        'nobody-has-this==1.0; extra == "edge"',
        'doorbell-federation[edge]; extra == "train"',
        'nor-this[fast]==2.0; extra == "server"',
        'not-for-us==3.0; platform_machine == "abacus" and extra == "train"',
        'not-asked-for==4.0; extra == "dev"',
    ]
    monkeypatch.setattr(
        extras.metadata,
        "requires",
        lambda name: requires if name == "doorbell-federation" else None,
    )
    monkeypatch.setattr(extras, "_installed", lambda name: name in ("flask", "doorbell-federation"))


@pytest.mark.usefixtures("distribution")
def test_what_is_missing_of_extras_is_found_through_extras_of_extras() -> None:
    assert extras.missing(["train"]) == ["nobody-has-this==1.0"]
    assert extras.missing(extras.EVERYTHING) == ["nobody-has-this==1.0", "nor-this[fast]==2.0"]
    with pytest.raises(
        NotReady, match="2 packages are not installed: nobody-has-this, nor-this"
    ) as refused:
        extras.check(extras.EVERYTHING)
    assert "pip install '.[server,train]'" in refused.value.todo


@pytest.mark.usefixtures("distribution")
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_missing_is_installed_as_pinned(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        calls.append(command)
        return subprocess.CompletedProcess(command, int(fails))

    monkeypatch.setattr(extras.subprocess, "run", run)
    if fails:
        with pytest.raises(NotReady, match="pip could not install it"):
            extras.install(["train"])
    else:
        extras.install(["train"])
    (command,) = calls
    assert (
        command[:4] == [sys.executable, "-m", "pip", "install"]
        and command[-1] == "nobody-has-this==1.0"
    )


@pytest.mark.usefixtures("distribution")
def test_an_environment_without_pip_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(extras, "_python", lambda module, *_: calls.append(module) or 0)
    extras.install(["train"])
    assert calls == ["ensurepip", "pip"]


@pytest.mark.usefixtures("distribution")
def test_nothing_is_installed_into_the_systems_own_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(extras.subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    with pytest.raises(NotReady, match="1 packages are not installed") as refused:
        extras.install(["train"])
    assert refused.value.todo.startswith("Make a virtual environment")
