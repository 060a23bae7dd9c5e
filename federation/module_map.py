"""The module map of docs/explanation/architecture.md, from the first sentence of each module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("federation", "device", "sec_agg", "main_server", "learning", "dataset", "shared")


def modules_page() -> str:
    """Return one table per package: each module, and what its first sentence says of it."""
    lines: list[str] = []
    for package in PACKAGES:
        lines += ["", f"### {package}/", "", "| module | what it is for |", "|---|---|"]
        lines += [f"| `{name}` | {sentence} |" for name, sentence in _modules(package)]
    return "\n".join(lines[1:])


def _modules(package: str) -> Iterator[tuple[str, str]]:
    """Yield each module's path below the package, rooms after what stands beside them."""
    folder = ROOT / package
    paths = [path for path in folder.rglob("*.py") if "migrations" not in path.parts]
    for path in sorted(paths, key=lambda path: (path.parent != folder, path.as_posix())):
        sentence = _first_sentence(path)
        if path.name != "__init__.py":
            yield path.relative_to(folder).as_posix(), sentence
        elif path.parent != folder:
            yield f"{path.parent.relative_to(folder).as_posix()}/", f"**{sentence}**"


def _first_sentence(path: Path) -> str:
    document = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(document.split("\n\n", maxsplit=1)[0].split())
    sentence, full_stop, _ = paragraph.partition(". ")
    return (sentence if full_stop else paragraph).rstrip(".:").replace("|", "\\|")
