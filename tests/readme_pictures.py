"""`make images`: the README's pictures, of a demonstration that really ran.

Starts `python -m federation demo`, draws its first table as docs/images/demo-table.svg, takes
docs/images/device-page.png of device 1's page, and stops the demonstration.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from federation.processes import PORTS
from tests.browser.conftest import ARGUMENTS, chromium

PROJECT = Path(__file__).resolve().parents[1]
IMAGES = PROJECT / "docs" / "images"
COLUMNS = 78
DETECTOR = "animal"
WIDTH_PX, HEIGHT_PX = 1000, 880
# The page names the machine's own folder above this section.
FIRST_SHOWN = "#overview"
# Few colours keep the PNG small.
COLOURS = 128
# Rich's own template names a font at a host of its own; a document asks no other host.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px monospace; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Run the demonstration, and write both pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with _demonstration() as said:
        (IMAGES / "demo-table.svg").write_text(_drawn(said))
        (IMAGES / "device-page.png").write_bytes(_screenshot(PORTS["device 1"]))
    for picture in sorted(IMAGES.iterdir()):
        sys.stdout.write(f"{picture.relative_to(PROJECT)}: {picture.stat().st_size:,} bytes\n")


@contextmanager
def _demonstration() -> Iterator[str]:
    """Run it until it stays up, yield its output, and stop it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "federation", "demo"],
        cwd=PROJECT,
        env={**os.environ, "COLUMNS": str(COLUMNS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    said = ""
    try:
        for line in process.stdout or ():
            sys.stdout.write(line)
            said += line
            if "Ctrl-C" in line:
                break
        else:
            raise SystemExit("The demonstration ended early; its message is above.")
        yield said
    finally:
        process.terminate()
        process.wait(60)


def _drawn(said: str) -> str:
    """Return the first table in a terminal's text, with the title above it, as SVG."""
    lines = said.splitlines()
    top = next(number for number, line in enumerate(lines) if line.startswith("┏"))
    bottom = next(number for number, line in enumerate(lines) if line.startswith("└"))
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text("\n".join(lines[top - 1 : bottom + 1])))
    return console.export_svg(title="make demo", code_format=SVG, unique_id="demo")


def _screenshot(port: int) -> bytes:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = browser.new_page(
            viewport={"width": WIDTH_PX, "height": HEIGHT_PX}, reduced_motion="reduce"
        )
        page.goto(f"http://localhost:{port}/?detector={DETECTOR}")
        box = page.locator(FIRST_SHOWN).bounding_box()
        assert box, f"The page has no {FIRST_SHOWN}."
        taken = page.screenshot(
            full_page=True, clip={"x": 0, "y": box["y"], "width": WIDTH_PX, "height": HEIGHT_PX}
        )
        picture = Image.open(io.BytesIO(taken))
        browser.close()
    small = io.BytesIO()
    picture.convert("RGB").quantize(COLOURS).save(small, format="PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    main()
