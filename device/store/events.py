"""What the doorbell saw: one row an event, one picture file beside.

Nothing of it leaves the device by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, bindparam, func, insert, select

from dataset.layout import split_of
from device.store.tables import RINGS
from device.vision.prediction import Prediction
from shared.errors import NotFound
from shared.storage.blobs import storage_errors, write_durably
from shared.storage.database import Database


@dataclass(frozen=True)
class RingEvent:
    """One ring.

    Attributes:
        id: Grows with time; no number is used twice.
        at: When, in seconds since the epoch.
        source: "button", "motion" or "upload".
        picture: Name of its file in the events' folder.
        sha256: Of the picture's bytes, as hex.
        bytes: Length of the picture.
        answers: What each detector answered then.
        labels: What the owner said: detector to whether it applies; None before.
    """

    id: int
    at: float
    source: str
    picture: str
    sha256: str
    bytes: int
    answers: Mapping[str, Prediction]
    labels: Mapping[str, bool] | None

    @property
    def split(self) -> str:
        """The split that this picture belongs to if it is labelled; decided by its bytes alone, so
        it never moves.
        """
        return split_of(self.sha256)


class EventStore:
    """The events of one device.

    Args:
        database: The device's.
        folder: Where their pictures lie; made if missing.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder
        with storage_errors(f"The folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        self._words = 0
        self._traces = True  # of events that were deleted before a restart, for all that is known

    def add(
        self, at: float, source: str, picture: bytes, answers: Mapping[str, Prediction]
    ) -> RingEvent:
        """Keep an event; when this returns, it is on the disk.

        Args:
            at: When, in seconds since the epoch.
            source: "button", "motion" or "upload".
            picture: A JPEG.
            answers: Detector to answer.
        """
        name = f"{uuid4().hex}.jpg"
        write_durably(self._folder / name, picture, 0o600)
        row = {
            "at": at,
            "source": source,
            "picture": name,
            "sha256": hashlib.sha256(picture).hexdigest(),
            "bytes": len(picture),
            "answers": json.dumps(
                {detector: asdict(answer) for detector, answer in answers.items()}
            ),
        }
        with self._database.write() as connection:
            number = connection.execute(insert(RINGS).values(row)).inserted_primary_key
        return _event(row | {"id": number[0] if number else 0, "labels": None})

    def event(self, number: int) -> RingEvent | None:
        """Return one event, or None."""
        with self._database.read() as connection:
            row = connection.execute(select(RINGS).where(RINGS.c.id == number)).mappings().first()
            return None if row is None else _event(row)

    def next_after(self, number: int) -> RingEvent | None:
        """Return the oldest event after a number, or None."""
        with self._database.read() as connection:
            later = select(RINGS).where(RINGS.c.id > number).order_by(RINGS.c.id).limit(1)
            row = connection.execute(later).mappings().first()
            return None if row is None else _event(row)

    def events(
        self,
        limit: int,
        detector: str | None = None,
        labelled: bool | None = None,
        before: int | None = None,
    ) -> tuple[RingEvent, ...]:
        """Return the newest events, newest first.

        Args:
            limit: At most so many.
            detector: Only those in which this one's verdict was yes, or the owner said so.
            labelled: Only those that the owner has labelled, or has not.
            before: Only those with a smaller number.
        """
        which: list[ColumnElement[bool]] = []
        if labelled is not None:
            which.append(RINGS.c.labels.is_not(None) if labelled else RINGS.c.labels.is_(None))
        if before is not None:
            which.append(RINGS.c.id < before)
        if detector is not None:
            verdict = func.json_extract(RINGS.c.answers, f'$."{detector}".verdict')
            said = func.json_extract(RINGS.c.labels, f'$."{detector}"')
            which.append(func.coalesce(said, verdict) == 1)
        with self._database.read() as connection:
            rows = connection.execute(
                select(RINGS).where(*which).order_by(RINGS.c.id.desc()).limit(limit)
            )
            return tuple(_event(row) for row in rows.mappings())

    def label(self, number: int, labels: Mapping[str, bool] | None) -> None:
        """Note what the owner said of an event, or that he took it back."""
        with self._database.write() as connection:
            mine = RINGS.update().where(RINGS.c.id == number)
            connection.execute(
                mine.values(labels=None if labels is None else json.dumps(dict(labels)))
            )
        self._words += 1

    def labelled_alike(self, event: RingEvent) -> tuple[RingEvent, ...]:
        """Return the other events that have the very same picture and a word of the owner, oldest
        first.
        """
        alike = (
            (RINGS.c.sha256 == event.sha256)
            & (RINGS.c.id != event.id)
            & RINGS.c.labels.is_not(None)
        )
        with self._database.read() as connection:
            rows = connection.execute(select(RINGS).where(alike).order_by(RINGS.c.id)).mappings()
            return tuple(_event(row) for row in rows)

    def picture(self, event: RingEvent) -> bytes:
        """Return an event's picture.

        Raises:
            NotFound: It is gone.
            StorageFailed: It cannot be read.
        """
        try:
            with storage_errors("An event's picture", "read"):
                return (self._folder / event.picture).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(
                "The picture of this event is gone.", todo="Open /events again."
            ) from error

    def delete(self, *events: RingEvent) -> None:
        """Remove events and their pictures; those that are gone already are no trouble."""
        with storage_errors("An event's picture", "removed"):
            for event in events:
                (self._folder / event.picture).unlink(missing_ok=True)
        if events:
            with self._database.write() as connection:
                one = RINGS.delete().where(RINGS.c.id == bindparam("gone"))
                connection.execute(one, [{"gone": event.id} for event in events])

    def leave_no_trace(self) -> None:
        """Take what was deleted out of the database's files as well.

        It never fails and hardly waits: what cannot be done now, and the rest of it, `sweep` does.
        """
        self._traces = True
        self._database.clear_traces()

    def outdated(self, now: float, keep_s: float, keep_bytes: int) -> tuple[RingEvent, ...]:
        """Return the events that are older than may be, and as many of the oldest others as are too
        many; by number.

        It is asked at every ring: of all events it reads no more than their lengths.
        """
        with self._database.read() as connection:
            total = connection.execute(select(func.sum(RINGS.c.bytes))).scalar() or 0
            too_old = select(RINGS).where(RINGS.c.at < now - keep_s)
            old = {row["id"]: _event(row) for row in connection.execute(too_old).mappings()}
            too_many = total - keep_bytes - sum(event.bytes for event in old.values())
            with connection.execute(select(RINGS).order_by(RINGS.c.id)) as rows:
                while too_many > 0 and (row := rows.mappings().fetchone()) is not None:
                    if row["id"] not in old:
                        old[row["id"]] = _event(row)
                        too_many -= row["bytes"]
        return tuple(old[number] for number in sorted(old))

    def sweep(self, older_than: float) -> None:
        """Remove what belongs to no event: picture files, whole or not, and what the database kept
        of deleted rows.

        A ring that was cut short leaves such a file.

        Args:
            older_than: Seconds since the epoch; younger files may still get their row.
        """
        with self._database.read() as connection:
            known = set(connection.execute(select(RINGS.c.picture)).scalars())
        for path in self._folder.glob("*.jpg*"):  # while it is written, something follows the name
            with suppress(FileNotFoundError):
                if path.name not in known and path.stat().st_mtime < older_than:
                    path.unlink()
        rewrite, self._traces = self._traces, False
        if not self._database.clear_traces(rewrite):
            self._traces = self._traces or rewrite

    def size(self) -> tuple[int, int]:
        """Return how many events there are, and the bytes of their pictures."""
        with self._database.read() as connection:
            count, total = connection.execute(select(func.count(), func.sum(RINGS.c.bytes))).one()
            return count, total or 0

    def fingerprint(self) -> str:
        """Return text that is another one when events came, went or were labelled."""
        with self._database.read() as connection:
            what = (func.count(), func.max(RINGS.c.id), func.count(RINGS.c.labels))
            return f"{connection.execute(select(*what)).one()} {self._words}"


def _event(row: Mapping[Any, Any]) -> RingEvent:
    answers = {
        detector: Prediction(**answer) for detector, answer in json.loads(row["answers"]).items()
    }
    labels = None if row["labels"] is None else json.loads(row["labels"])
    plain = {name: row[name] for name in ("id", "at", "source", "picture", "sha256", "bytes")}
    return RingEvent(**plain, answers=answers, labels=labels)
