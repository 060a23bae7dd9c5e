"""The data set's command line: `python -m dataset draw | show | fetch | import`.

A device's set-up runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import frigate, public
from dataset.decoding import UnusablePicture, decode
from dataset.porch import drawing as porch
from shared.errors import DatasetError, DoorbellError

SHOWN_PER_ROW = 10
EDGE_PX = 128
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")

Row = tuple[str, list[NDArray[np.uint8]]]
"""A caption and the pictures that stand under it."""


def draw(args: argparse.Namespace) -> None:
    """Draw the default pictures into a new folder."""
    count = porch.write_default(args.out, clients=args.clients, seed=args.seed, on_progress=_tell)
    print(f"\nDrew {count} pictures into {args.out}.")


def show(args: argparse.Namespace) -> None:
    """Write a captioned sheet: a row for every detector, class and camera."""
    drawn = args.data is None
    rows = list(
        _drawn_rows(args.clients, args.seed, args.split)
        if drawn
        else _stored_rows(args.data, args.split)
    )
    if not rows:
        raise DatasetError(
            f"{args.data} holds no pictures laid out as"
            f" <detector>/client_<k>/{args.split}/<class>.",
            todo="Name a folder that `python -m dataset draw` has written.",
        )
    blank = np.full((EDGE_PX, EDGE_PX, 3), porch.PAPER, np.uint8)
    pictures, captions = [], []
    for caption, row in rows:
        pictures += row + [blank] * (SHOWN_PER_ROW - len(row))
        captions += [caption] + [""] * (SHOWN_PER_ROW - 1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = porch.montage(pictures, SHOWN_PER_ROW, captions)
    args.out.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    print(f"Wrote {args.out}: {len(rows)} rows of up to {SHOWN_PER_ROW} pictures.")


def _drawn_rows(clients: int, seed: int, split: str) -> Iterator[Row]:
    for detector in porch.DETECTORS:
        for positive in (True, False):
            for camera in range(1, clients + 1):
                shots = range(SHOWN_PER_ROW)
                row = [
                    porch.draw(detector, positive, camera, split, index, seed=seed)
                    for index in shots
                ]
                yield f"{detector if positive else 'not_' + detector}, client_{camera}", row


def _stored_rows(data: Path, split: str) -> Iterator[Row]:
    for folder in sorted(
        data.glob(f"*/client_*/{split}/*/"), key=lambda path: (path.parts[-4], path.name, path)
    ):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        row = [picture for path in files[:SHOWN_PER_ROW] if (picture := _read(path)) is not None]
        if row:
            yield f"{folder.name}, {folder.parts[-3]}", row


def _read(path: Path) -> NDArray[np.uint8] | None:
    try:
        return decode(path.read_bytes(), EDGE_PX)
    except UnusablePicture:
        return None


def _tell(done: int, total: int) -> None:
    if done % 100 == 0 or done == total:
        print(f"\r{done} of {total} pictures", end="", flush=True)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _count(text: str) -> int:
    if _whole(text) == 0:
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return int(text)


def command_line(prog: str) -> argparse.ArgumentParser:
    """Return the command line; `prog` is how it is called."""
    parser = argparse.ArgumentParser(
        prog=prog, description="The pictures that doorbells learn from."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    drawing = commands.add_parser("draw", help="draw the default pictures")
    drawing.add_argument(
        "--out", type=Path, default=Path("var/pictures"), help="a new folder (%(default)s)"
    )
    drawing.set_defaults(run=draw)

    showing = commands.add_parser("show", help="write a sheet of what each camera sees")
    showing.add_argument("--data", type=Path, help="a folder of pictures; drawn afresh if left out")
    showing.add_argument(
        "--split", choices=porch.SPLITS, default="train", help="which split (%(default)s)"
    )
    showing.add_argument(
        "--out", type=Path, default=Path("var/montage.png"), help="the sheet (%(default)s)"
    )
    showing.set_defaults(run=show)

    public.add_fetch(commands)
    frigate.add_import(commands)
    for command in (drawing, showing):
        command.add_argument(
            "--seed", type=_whole, default=0, help="another neighbourhood (%(default)s)"
        )
        command.add_argument(
            "--clients", type=_count, default=2, help="how many devices (%(default)s)"
        )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "python -m dataset") -> int:
    """Run one command.

    Args:
        argv: The words after `python -m dataset`; the process's own if left out.
        prog: How it is called, for its help.

    Returns:
        The exit status: 0 if it went well, 1 if not.
    """
    args = command_line(prog).parse_args(argv)
    try:
        args.run(args)
    except (DoorbellError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
