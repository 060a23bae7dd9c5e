"""The generated parts of the documentation: settings, commands, modules (`make docs`).

Each is written between two markers of its page; what stands around them is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device.settings import DeviceSettings, device_port
from federation.cli import command_lines
from federation.commands import GROUPS
from federation.module_map import modules_page
from main_server.settings import MAIN_PORT, MainSettings
from sec_agg.settings import AGGREGATOR_PORT, AggregatorSettings
from shared.environment import whole
from shared.settings import (
    ListenSettings,
    LogSettings,
    OperatorSettings,
    Setting,
    declared_in,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
SERVICES: Mapping[str, type] = {
    "Device": DeviceSettings,
    "Main server": MainSettings,
    "Secure aggregator": AggregatorSettings,
}
EVERYWHERE = (OperatorSettings, LogSettings, ListenSettings)
"""Settings that all three services read."""
PORTS = (MAIN_PORT, AGGREGATOR_PORT, device_port(1))
WORKERS = Setting(
    "WEB_CONCURRENCY",
    whole(1, 64),
    "1",
    "number of gunicorn worker processes; read by gunicorn",
)
_SHOWN = {"home": "$DOORBELL_HOME", "number": "N", "port": "800N"}
"""What the names in braces of a default are on the page."""


def every_setting() -> dict[str, list[Setting[Any]]]:
    """Return all settings under the titles of the services that read them."""
    titles: dict[str, list[str]] = {}
    declared: dict[str, Setting[Any]] = {}
    for title, kind in SERVICES.items():
        for setting in declared_in(kind):
            declared[setting.variable] = setting
            readers = titles.setdefault(setting.variable, [])
            if title not in readers:
                readers.append(title)
    sections: dict[str, list[Setting[Any]]] = {"Every service": []}
    sections |= {title: [] for title in SERVICES}
    for variable, setting in declared.items():
        sections.setdefault(_title(titles[variable]), []).append(setting)
    general = sections["Every service"]
    for kind in EVERYWHERE:
        general += [each for each in declared_in(kind) if each.variable not in declared]
    general += PORTS
    sections["Main server, secure aggregator"].append(WORKERS)
    return {title: settings for title, settings in sections.items() if settings}


def _title(readers: list[str]) -> str:
    if len(readers) == len(SERVICES):
        return "Every service"
    first, *others = readers
    return ", ".join([first, *(other.lower() for other in others)])


def settings_page() -> str:
    """Return the tables of all settings, one for each set of services that read them."""
    lines: list[str] = []
    for title, settings in every_setting().items():
        lines += ["", f"## {title}", ""]
        lines += ["| variable | values | default | description |", "|---|---|---|---|"]
        lines += [_setting_row(setting) for setting in settings]
    return "\n".join(lines[1:])


def _setting_row(setting: Setting[Any]) -> str:
    default = setting.shown or f"`{(setting.default or '').format_map(_SHOWN)}`"
    values = setting.values.range
    return f"| `{setting.variable}` | {values} | {default} | {setting.sentence} |"


def commands_page() -> str:
    """Return the tables of all commands, one for each group of `doorbell --help`."""
    lines: list[str] = []
    for title, helps in GROUPS.items():
        lines += ["", f"## {title}", ""]
        lines += ["| command | description | options |", "|---|---|---|"]
        for name, summary in helps.items():
            for parser in command_lines(name):
                own = summary if parser.prog == f"doorbell {name}" else parser.description or ""
                lines += [each.row() for each in _leaves(parser, own)]
    return "\n".join(lines[1:])


@dataclass(frozen=True)
class Command:
    """One row of the page.

    Attributes:
        usage: The words to type, with what takes a value in capitals.
        summary: What it does.
        options: The options that it takes, `--help` left out.
    """

    usage: str
    summary: str
    options: tuple[str, ...]

    def row(self) -> str:
        """Return the row in Markdown."""
        options = ", ".join(f"`{option}`" for option in self.options)
        return f"| `{self.usage}` | {self.summary} | {options} |"


def _leaves(parser: argparse.ArgumentParser, summary: str) -> Iterator[Command]:
    """List a command, or the commands below it."""
    below = _subcommands(parser)
    if below is None:
        yield _command(parser, summary)
        return
    helps = {each.dest: each.help or "" for each in below._choices_actions}
    for name, each in below.choices.items():
        yield from _leaves(each, helps.get(name, ""))


def _subcommands(parser: argparse.ArgumentParser) -> Any:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action
    return None


def _command(parser: argparse.ArgumentParser, summary: str) -> Command:
    words = [parser.prog]
    options = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        if action.option_strings:
            options.append(_option(action))
        else:
            words.append(_positional(action))
    return Command(" ".join(words), summary, tuple(options))


def _option(action: argparse.Action) -> str:
    words = action.option_strings[-1]
    if action.nargs == 0:
        return words
    choices = "\\|".join(map(str, action.choices)) if action.choices else ""
    value = choices or action.metavar or action.dest.upper()
    return f"{words} {value}"


def _positional(action: argparse.Action) -> str:
    if action.choices:
        return "\\|".join(map(str, action.choices))
    word = str(action.metavar or action.dest.upper())
    return f"[{word}]" if action.nargs == "?" else word


PAGES: Mapping[str, Callable[[], str]] = {
    "settings": settings_page,
    "cli": commands_page,
    "modules": modules_page,
}


def path_of(name: str) -> Path:
    """Return the file that has the part of that name."""
    if name == "modules":
        return DOCS / "explanation" / "architecture.md"
    return DOCS / "reference" / f"{name}.md"


def page(name: str) -> str:
    """Return a whole page with its generated part renewed.

    Args:
        name: Of its markers, one of `PAGES`.
    """
    text = path_of(name).read_text()
    begin, end = f"<!-- generated: {name} -->\n", f"<!-- /generated: {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{PAGES[name]()}\n{end}{after}"


def main() -> int:
    """Renew the pages of a checkout."""
    for name in PAGES:
        path = path_of(name)
        path.write_text(page(name))
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
