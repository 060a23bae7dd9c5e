"""The doorbell's events: one row each, and one picture file beside.

Nothing of them leaves the device by itself.
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

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select

from dataset.layout import split_of
from device.store.tables import RINGS
from device.vision.prediction import Prediction
from shared.errors import NotFound
from shared.storage.blobs import storage_errors, write_durably
from shared.storage.database import Database

_OWNER_ONLY = 0o600
_PLAIN_COLUMNS = ("id", "at", "source", "picture", "sha256", "bytes")


@dataclass(frozen=True)
class RingEvent:
    """One ring.

    Attributes:
        id: Grows with time; no number is used twice.
        at: Seconds since the epoch.
        source: "button", "motion" or "upload".
        picture: Name of its file in the events' folder.
        sha256: Digest of the picture's bytes, hexadecimal.
        bytes: Length of the picture.
        answers: Detector to the prediction at that time.
        labels: The owner's label, detector to whether it applies; None if there is none.
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
        """The split that this picture joins if it is labelled; its bytes alone decide, so it never
        moves.
        """
        return split_of(self.sha256)


class EventStore:
    """The events of one device.

    Args:
        database: The device's.
        folder: Folder of their pictures; made if missing.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        with storage_errors(f"The folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        self._labellings = 0
        # Of events that were deleted before a restart: they may be in the database's files still.
        self._traces = True

    def add(
        self, at: float, source: str, picture: bytes, answers: Mapping[str, Prediction]
    ) -> RingEvent:
        """Keep an event; when this returns, it is on the disk.

        Args:
            at: Seconds since the epoch.
            source: "button", "motion" or "upload".
            picture: A JPEG.
            answers: Detector to prediction.

        Raises:
            StorageFailed: It cannot be kept.
        """
        name = f"{uuid4().hex}.jpg"
        # The file first: no row ever names a picture that is not there.
        write_durably(self._folder / name, picture, _OWNER_ONLY)
        predictions = {detector: asdict(prediction) for detector, prediction in answers.items()}
        row = {
            "at": at,
            "source": source,
            "picture": name,
            "sha256": hashlib.sha256(picture).hexdigest(),
            "bytes": len(picture),
            "answers": json.dumps(predictions),
        }
        with self._database.write() as connection:
            number = connection.execute(insert(RINGS).values(row)).inserted_primary_key
        return _event(row | {"id": number[0] if number else 0, "labels": None})

    def event(self, number: int) -> RingEvent | None:
        """Return the event of a number, or None."""
        query = select(RINGS).where(RINGS.c.id == number)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _event(row)

    def next_after(self, number: int) -> RingEvent | None:
        """Return the oldest event after a number, or None."""
        query = select(RINGS).where(RINGS.c.id > number).order_by(RINGS.c.id).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
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
            detector: Only those that are labelled as showing it, or else predicted to.
            labelled: Only those with a label, or without one; None for both.
            before: Only those with a smaller number.
        """
        which: list[ColumnElement[bool]] = []
        if labelled is not None:
            has_label = RINGS.c.labels.is_not(None)
            which.append(has_label if labelled else ~has_label)
        if before is not None:
            which.append(RINGS.c.id < before)
        if detector is not None:
            which.append(_shows(detector))
        query = select(RINGS).where(*which).order_by(RINGS.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return tuple(_event(row) for row in connection.execute(query).mappings())

    def label(self, number: int, labels: Mapping[str, bool] | None) -> None:
        """Record the owner's label of an event, or with None that it is removed."""
        text = None if labels is None else json.dumps(dict(labels))
        mine = RINGS.update().where(RINGS.c.id == number)
        with self._database.write() as connection:
            connection.execute(mine.values(labels=text))
        self._labellings += 1

    def labelled_alike(self, event: RingEvent) -> tuple[RingEvent, ...]:
        """Return the other labelled events with the very same picture, oldest first."""
        others = select(RINGS).where(
            RINGS.c.sha256 == event.sha256,
            RINGS.c.id != event.id,
            RINGS.c.labels.is_not(None),
        )
        with self._database.read() as connection:
            rows = connection.execute(others.order_by(RINGS.c.id)).mappings()
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
        """Delete events and their pictures; what is gone already does not matter."""
        if not events:
            return
        # The files first: a row that is left is deleted again, a file without row only by `sweep`.
        with storage_errors("An event's picture", "removed"):
            for event in events:
                (self._folder / event.picture).unlink(missing_ok=True)
        one = RINGS.delete().where(RINGS.c.id == bindparam("gone"))
        with self._database.write() as connection:
            connection.execute(one, [{"gone": event.id} for event in events])

    def leave_no_trace(self) -> None:
        """Clear deleted events from the database's files as well.

        It never fails and hardly waits: what cannot be done now, and the rest of it, `sweep` does.
        """
        self._traces = True
        self._database.clear_traces()

    def outdated(self, now: float, keep_s: float, keep_bytes: int) -> tuple[RingEvent, ...]:
        """Return the events to be deleted, oldest first.

        They are those that are too old, and of the others as many of the oldest as have to go for
        the pictures to fit. It is called at every ring: of the rest it reads no more than the sum
        of their lengths.

        Args:
            now: Seconds since the epoch.
            keep_s: How long events are kept, in seconds.
            keep_bytes: How many bytes of pictures are kept.
        """
        too_old = select(RINGS).where(RINGS.c.at < now - keep_s)
        with self._database.read() as connection:
            total = connection.execute(select(func.sum(RINGS.c.bytes))).scalar() or 0
            old = {row["id"]: _event(row) for row in connection.execute(too_old).mappings()}
            excess = total - keep_bytes - sum(event.bytes for event in old.values())
            _add_oldest(connection, old, excess)
        return tuple(old[number] for number in sorted(old))

    def sweep(self, older_than: float) -> None:
        """Remove what belongs to no event: picture files, whole or not, and traces of deleted rows.

        A ring that was cut short leaves such a file.

        Args:
            older_than: Seconds since the epoch; younger files may still get their row.
        """
        with self._database.read() as connection:
            known = set(connection.execute(select(RINGS.c.picture)).scalars())
        for path in self._folder.glob("*.jpg*"):  # while it is written, its name is longer
            with suppress(FileNotFoundError):
                if path.name not in known and path.stat().st_mtime < older_than:
                    path.unlink()
        # Reset first: an event that is deleted meanwhile sets it again.
        rewrite = self._traces
        self._traces = False
        if not self._database.clear_traces(rewrite):
            self._traces = self._traces or rewrite

    def size(self) -> tuple[int, int]:
        """Return the number of events, and the bytes of their pictures."""
        query = select(func.count(), func.sum(RINGS.c.bytes))
        with self._database.read() as connection:
            count, total = connection.execute(query).one()
        return count, total or 0

    def fingerprint(self) -> str:
        """Return text that changes whenever events come, go or are labelled."""
        query = select(func.count(), func.max(RINGS.c.id), func.count(RINGS.c.labels))
        with self._database.read() as connection:
            return f"{connection.execute(query).one()} {self._labellings}"


def _shows(detector: str) -> ColumnElement[bool]:
    """Return the condition that an event shows a detector's object: the label wins."""
    labelled = func.json_extract(RINGS.c.labels, f'$."{detector}"')
    predicted = func.json_extract(RINGS.c.answers, f'$."{detector}".verdict')
    shows: ColumnElement[bool] = func.coalesce(labelled, predicted) == 1
    return shows


def _add_oldest(connection: Connection, old: dict[int, RingEvent], excess: int) -> None:
    """Add the oldest events that are not in `old` until they have `excess` bytes."""
    with connection.execute(select(RINGS).order_by(RINGS.c.id)) as result:
        rows = result.mappings()
        while excess > 0:
            row = rows.fetchone()
            if row is None:
                return
            if row["id"] not in old:
                old[row["id"]] = _event(row)
                excess -= row["bytes"]


def _event(row: Mapping[Any, Any]) -> RingEvent:
    stored = json.loads(row["answers"])
    answers = {detector: Prediction(**answer) for detector, answer in stored.items()}
    labels = None if row["labels"] is None else json.loads(row["labels"])
    plain = {name: row[name] for name in _PLAIN_COLUMNS}
    return RingEvent(**plain, answers=answers, labels=labels)
