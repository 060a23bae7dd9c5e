"""Tables as CSV: what goes in comes out, and nothing in them is a formula."""

from __future__ import annotations

import csv
import io

import pytest

from shared.web.spreadsheet import csv_of

HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "\r=1",
    "＝1+1",
    "a;=1",
    'a";=cmd',
    'a,"=1',
    "a\n=1",
    "a|@b",
]


def read(data: bytes, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=separator))


def test_what_goes_in_comes_out() -> None:
    rows = [["porch", 'a "quoted", name\nin two lines', 0.5, -0.25, 3, None]]
    table = read(csv_of(["device", "file", "value", "difference", "pictures", "low"], rows))
    assert table[1] == ["porch", 'a "quoted", name\nin two lines', "0.5", "-0.25", "3", ""]


@pytest.mark.parametrize(
    "separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"]
)
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_cell_begins_as_a_formula_whatever_the_separator(text: str, separator: str) -> None:
    for row in read(csv_of(["device", "file"], [["porch", text]]), separator):
        for cell in row:
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝"))


def test_harmless_signs_and_numbers_are_left_alone() -> None:
    assert read(csv_of(["file"], [["cat-1 @home = a+b.jpg", -0.5]]))[1] == [
        "cat-1 @home = a+b.jpg",
        "-0.5",
    ]


def test_name_that_is_no_text_becomes_one() -> None:
    assert read(csv_of(["file"], [["caf\udce9.jpg"]]))[1] == ["caf?.jpg"]
