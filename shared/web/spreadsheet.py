"""Tables to take away, as CSV (RFC 4180), in which a spreadsheet finds no formula to run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

from flask import Response

from shared.web.openapi import STRING, Content

CSV: Final[Content] = {"text/csv": STRING}
Cell = str | float | int | None
_FORMULA: Final = re.compile(r'(^|[;,|\t\r\n"])(?=\s*[=+\-@＝＋－＠])')
"""Where a formula begins: at the start of a cell, also if another separator is taken."""


def csv_of(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """Return a table in UTF-8.

    None is an empty cell, and a character that cannot be written a question mark. In a text, a
    single quote is put before what a spreadsheet would take for a formula
    (https://owasp.org/www-community/attacks/CSV_Injection); numbers stay numbers.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(header)
    writer.writerows(
        [_FORMULA.sub(r"\1'", cell) if isinstance(cell, str) else cell for cell in row]
        for row in rows
    )
    return file.getvalue().encode("utf-8", "replace")


def download(name: str, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Response:
    """Return a table as a file to keep.

    Args:
        name: The file's name, without a character of a header's syntax.
        header: The first row.
        rows: The others.
    """
    response = Response(csv_of(header, rows), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response
