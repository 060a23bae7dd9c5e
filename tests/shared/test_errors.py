"""The tree of errors at the top of `shared/errors.py` shows every error of the project."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import shared.errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shared", "dataset", "learning", "device", "sec_agg", "main_server", "federation")
ROW = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>\w+) +(?P<status>\d{3}) ")
INDENT = 4


@dataclass(frozen=True)
class Drawn:
    """An error as the tree draws it: its name, its parent's, and its HTTP status."""

    name: str
    parent: str
    status: int


def drawn() -> set[Drawn]:
    """Read the tree in the docstring."""
    above: list[str] = ["DoorbellError"]
    found = set()
    for line in (shared.errors.__doc__ or "").splitlines():
        row = ROW.match(line)
        if row is None:
            continue
        depth = len(row["branch"]) // INDENT
        found.add(Drawn(row["name"], above[depth - 1], int(row["status"])))
        above[depth:] = [row["name"]]
    return found


def declared() -> set[Drawn]:
    """Find the errors in the source, without importing what needs TensorFlow."""
    classes = [
        node
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    statuses = {"DoorbellError": 500}
    found: set[Drawn] = set()
    while True:
        new = {
            Drawn(node.name, parent, status_of(node, statuses[parent]))
            for node in classes
            for parent in map(ast.unparse, node.bases)
            if parent in statuses
        }
        if new == found:
            return found
        found = new
        statuses |= {each.name: each.status for each in found}


def status_of(node: ast.ClassDef, inherited: int) -> int:
    """Return the status that a class sets, or its parent's."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "status":
            return int(HTTPStatus[ast.unparse(statement.value).removeprefix("HTTPStatus.")])
    return inherited


def test_tree_of_errors_shows_each_with_its_parent_and_status() -> None:
    assert drawn() == declared()
    assert len(drawn()) > 20
