"""What the main server remembers: devices, rounds, versions of the models, and who has which."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select

from main_server.store.evaluations import PerformanceStore
from main_server.store.records import PENDING, Device, Participation, Round, Status, Version
from main_server.store.runs import RUNNING, Score
from main_server.store.snapshot import StandingStore, round_of
from main_server.store.states import ABANDONED, FAILED, OPEN, PUBLISHED, move, note
from main_server.store.tables import (
    CONTRIBUTIONS,
    DEVICES,
    PARTICIPATIONS,
    PINS,
    ROUNDS,
    RUNS,
    SCORES,
    VERSIONS,
)
from shared.round.plan import RoundPlan


class Store(StandingStore, PerformanceStore):
    """The main server's database; each method is one transaction."""

    def note_device(self, device: Device, detectors: Mapping[str, int | None]) -> None:
        """Note that a device is there, where it can be reached, and the last round it trained per
        detector.
        """
        with self.database.write() as connection:
            _note_device(connection, device)
            for detector, trained_round in detectors.items():
                _note_participation(connection, device.name, detector, trained_round=trained_round)

    def note_status(self, device: Device, detectors: Mapping[str, Status]) -> None:
        """Note what a device says of itself when it asks for work."""
        with self.database.write() as connection:
            _note_device(connection, device)
            for detector, status in detectors.items():
                setback = status.setback or (None, None)
                _note_participation(
                    connection,
                    device.name,
                    detector,
                    trained_round=status.trained_round,
                    delivered=status.held,
                    setback_round=setback[0],
                    setback=setback[1],
                )
                if status.sent_round is not None:
                    _note_sent(connection, device, detector, status.sent_round)
                scores = [] if status.score is None else [status.score]
                if status.held is not None and status.held not in [
                    version for version, _, _ in scores
                ]:
                    scores.append(
                        (status.held, 0.0, 0)
                    )  # it has no validation pictures: nothing is to be waited for
                for version, accuracy, pictures in scores:
                    _note_score(
                        connection,
                        detector,
                        version,
                        Score(device.name, accuracy, pictures),
                        device.last_seen,
                    )

    def devices(self) -> tuple[Device, ...]:
        """Return every device, by name."""
        with self.database.read() as connection:
            rows = connection.execute(select(DEVICES).order_by(DEVICES.c.name)).mappings()
            return tuple(Device(**row) for row in rows)

    def participations(self, detector: str | None = None) -> tuple[Participation, ...]:
        """Return who takes part in a detector, or in any, by detector and name."""
        with self.database.read() as connection:
            query = select(PARTICIPATIONS).order_by(
                PARTICIPATIONS.c.detector, PARTICIPATIONS.c.device
            )
            query = query.where(PARTICIPATIONS.c.detector == detector) if detector else query
            return tuple(Participation(**row) for row in connection.execute(query).mappings())

    def note_delivery(self, device: str, detector: str, version: str) -> None:
        """Note that a device has a version."""
        where = and_(PARTICIPATIONS.c.device == device, PARTICIPATIONS.c.detector == detector)
        with self.database.write() as connection:
            connection.execute(PARTICIPATIONS.update().where(where).values(delivered=version))

    def detectors(self) -> tuple[str, ...]:
        """Return every detector that a device takes part in, in alphabetical order."""
        with self.database.read() as connection:
            query = select(PARTICIPATIONS.c.detector).distinct().order_by(PARTICIPATIONS.c.detector)
            return tuple(connection.execute(query).scalars())

    def newest_round(self, detector: str) -> Round | None:
        """Return the newest round of a detector, or None if it has had none."""
        with self.database.read() as connection:
            return _round(connection, detector)

    def round(self, detector: str, number: int) -> Round | None:
        """Return one round, or None if there was no such."""
        with self.database.read() as connection:
            return _round(connection, detector, number)

    def rounds(self, detector: str, count: int, since: int = 0) -> tuple[Round, ...]:
        """Return the newest rounds of a detector from number `since` on, newest first."""
        with self.database.read() as connection:
            query = select(ROUNDS).where(ROUNDS.c.detector == detector, ROUNDS.c.round >= since)
            rows = connection.execute(query.order_by(ROUNDS.c.round.desc()).limit(count)).mappings()
            return tuple(round_of(row) for row in rows)

    def published_since(self, detector: str, first_round: int) -> int:
        """Return how many rounds were published from number `first_round` on."""
        with self.database.read() as connection:
            mine = (
                ROUNDS.c.detector == detector,
                ROUNDS.c.round >= first_round,
                ROUNDS.c.state == PUBLISHED,
            )
            return (
                connection.execute(select(func.count()).select_from(ROUNDS).where(*mine)).scalar()
                or 0
            )

    def open_round(self, settings: RoundPlan, at: float) -> Round:
        """Open a round unless the detector has that one or a newer already; return its newest."""
        with self.database.write() as connection:
            newest = _round(connection, settings.detector)
            if newest is not None and newest.settings.round >= settings.round:
                return newest
            if newest is not None and newest.state == OPEN:
                said = (
                    f"Round {newest.settings.round} is given up: the settings or the model changed."
                )
                move(connection, settings.detector, newest.settings.round, ABANDONED, at, said)
            text = json.dumps(settings.to_json())
            row = {
                "detector": settings.detector,
                "round": settings.round,
                "settings": text,
                "state": OPEN,
            }
            connection.execute(insert(ROUNDS).values(row | {"opened_at": at}))
            said = f"Round {settings.round} is open."
            note(connection, at, "opened", said, detector=settings.detector, round=settings.round)
            return Round(settings, OPEN, opened_at=at)

    def ask(self, settings: RoundPlan, at: float, before: float | None = None) -> None:
        """Note that the devices are asked to train for a round, once: if it was last asked for
        `before`.
        """
        with self.database.write() as connection:
            current = _round(connection, settings.detector, settings.round)
            if (
                current
                and current.asked_at == before
                and _set_open(connection, settings, asked_at=at, due_at=None)
            ):
                said = f"The devices are asked to train for round {settings.round}."
                note(
                    connection, at, "asked", said, detector=settings.detector, round=settings.round
                )

    def make_due(self, settings: RoundPlan, at: float, said: str) -> None:
        """Note that a round is to be summed now, once."""
        with self.database.write() as connection:
            current = _round(connection, settings.detector, settings.round)
            if (
                current is not None
                and current.due_at is None
                and _set_open(connection, settings, due_at=at)
            ):
                note(connection, at, "due", said, detector=settings.detector, round=settings.round)

    def note_given(self, detector: str, size: int) -> None:
        """Count bytes of models that were given to devices with the detector's newest round."""
        newest = (
            select(func.max(ROUNDS.c.round)).where(ROUNDS.c.detector == detector).scalar_subquery()
        )
        mine = and_(ROUNDS.c.detector == detector, ROUNDS.c.round == newest)
        with self.database.write(alone=False) as connection:
            connection.execute(
                ROUNDS.update().where(mine).values(bytes_down=ROUNDS.c.bytes_down + size)
            )

    def vouch(self, settings: RoundPlan, devices: list[str]) -> None:
        """Note whose seeds opened in a round: their updates may be in its sum from now on."""
        with self.database.write() as connection:
            _set_open(connection, settings, vouched=json.dumps(devices))

    def vouched(self, detector: str, number: int) -> bool:
        """Return whether an aggregator may have frozen a cohort of a round."""
        with self.database.read() as connection:
            mine = and_(ROUNDS.c.detector == detector, ROUNDS.c.round == number)
            return connection.execute(select(ROUNDS.c.vouched).where(mine)).scalar() not in (
                None,
                "[]",
            )

    def give_up(self, settings: RoundPlan, at: float, said: str) -> None:
        """Abandon a round if it is open."""
        with self.database.write() as connection:
            move(connection, settings.detector, settings.round, ABANDONED, at, said)

    def publish(
        self,
        settings: RoundPlan,
        cohort: tuple[str, ...],
        aggregate: str,
        clamped: int,
        version: Version,
        received: int = 0,
    ) -> Round:
        """Close an open round with the version that came of it, once; return the round as it then
        stands.

        A version that a run made is released at once; any other when the operator delivers it. The
        sum's bytes are counted as `received`.
        """
        with self.database.write() as connection:
            said = f"Round {settings.round} is published: {len(cohort)} devices are in it."
            values = {"aggregate": aggregate, "cohort": json.dumps(cohort), "clamped": clamped}
            values |= {"bytes_up": ROUNDS.c.bytes_up + received}
            pinned = connection.execute(
                select(PINS).where(PINS.c.detector == settings.detector)
            ).first()
            if not pinned and move(
                connection,
                settings.detector,
                settings.round,
                PUBLISHED,
                version.made_at,
                said,
                **values,
            ):
                _add_version(connection, version, gate=PENDING)
                running = and_(RUNS.c.detector == settings.detector, RUNS.c.state == RUNNING)
                if connection.execute(select(RUNS.c.id).where(running)).first():
                    _release(connection, version.version, version.made_at)
            return _round(connection, settings.detector, settings.round) or Round(settings, OPEN)

    def fail(self, settings: RoundPlan, aggregate: str, at: float) -> None:
        """Close an open round whose sum made no sense."""
        with self.database.write() as connection:
            said = f"Round {settings.round} has failed: its sum made no sense."
            move(
                connection, settings.detector, settings.round, FAILED, at, said, aggregate=aggregate
            )

    def add_version(self, version: Version) -> None:
        """Add a version that no round made, if it is new."""
        with self.database.write() as connection:
            _add_version(connection, version)

    def release(self, version: str, at: float) -> None:
        """Give a version to the devices from now on."""
        with self.database.write() as connection:
            _release(connection, version, at)

    def judge(
        self, version: Version, gate: str, said: str, at: float, instead: Version | None = None
    ) -> bool:
        """Close the gate of a pending version, once; False if another was faster.

        Args:
            version: The version.
            gate: "passed", "rejected" or "unchecked".
            said: Why.
            at: When.
            instead: The version that is in force from now on, in the same transaction; the open
                round is given up.
        """
        with self.database.write() as connection:
            if instead is not None and not _is_next(connection, instead):
                return False  # something newer came meanwhile: look again
            mine = and_(VERSIONS.c.version == version.version, VERSIONS.c.gate == PENDING)
            judged = (
                connection.execute(
                    VERSIONS.update().where(mine).values(gate=gate, said=said)
                ).rowcount
                == 1
            )
            if judged:
                what = f"The model of round {version.round} is {gate}: {said}"
                note(connection, at, gate, what, detector=version.detector, round=version.round)
                if instead is not None:
                    _put_in_force(connection, instead, at, said)
            return judged

    def put_in_force(self, version: Version, at: float, said: str) -> bool:
        """Make a version the newest, and give it to the devices; the open round is given up.

        Returns:
            False if something newer came meanwhile; then nothing was changed.
        """
        with self.database.write() as connection:
            is_next = _is_next(connection, version)
            if is_next:
                _put_in_force(connection, version, at, said)
            return is_next

    def newest_version(self, detector: str, released: bool = False) -> Version | None:
        """Return the newest version of a detector's model, or the newest that is released; None if
        there is none.
        """
        with self.database.read() as connection:
            query = select(VERSIONS).where(VERSIONS.c.detector == detector)
            query = query.where(VERSIONS.c.released_at.is_not(None)) if released else query
            row = (
                connection.execute(query.order_by(VERSIONS.c.round.desc()).limit(1))
                .mappings()
                .first()
            )
            return None if row is None else Version(**row)

    def versions(self, detector: str, count: int) -> tuple[Version, ...]:
        """Return the newest versions of a detector, newest first."""
        with self.database.read() as connection:
            query = (
                select(VERSIONS)
                .where(VERSIONS.c.detector == detector)
                .order_by(VERSIONS.c.round.desc())
            )
            return tuple(
                Version(**row) for row in connection.execute(query.limit(count)).mappings()
            )

    def find_versions(self, beginning: str) -> tuple[Version, ...]:
        """Return the versions whose names begin so."""
        with self.database.read() as connection:
            query = select(VERSIONS).where(
                VERSIONS.c.version.startswith(beginning, autoescape=True)
            )
            return tuple(Version(**row) for row in connection.execute(query).mappings())

    def version(self, version: str) -> Version | None:
        """Return a version that was published, or None if it never was."""
        with self.database.read() as connection:
            row = (
                connection.execute(select(VERSIONS).where(VERSIONS.c.version == version))
                .mappings()
                .first()
            )
            return None if row is None else Version(**row)

    def keep_plain_update(
        self, settings: RoundPlan, device: str, digest: str, at: float, received: int = 0
    ) -> bool:
        """Keep a plain update, replacing an earlier one of the device; False if the round is
        closed.

        Its bytes are counted as `received`.
        """
        with self.database.write() as connection:
            current = _round(connection, settings.detector, settings.round)
            if current is None or current.state != OPEN:
                return False
            connection.execute(
                CONTRIBUTIONS.delete().where(_of(settings), CONTRIBUTIONS.c.device == device)
            )
            row = {
                "detector": settings.detector,
                "round": settings.round,
                "device": device,
                "digest": digest,
            }
            connection.execute(insert(CONTRIBUTIONS).values(row | {"sent_at": at}))
            return _set_open(connection, settings, bytes_up=ROUNDS.c.bytes_up + received)

    def plain_updates(self, settings: RoundPlan) -> dict[str, str]:
        """Return device to digest of the plain updates of a round, by device name."""
        with self.database.read() as connection:
            columns = (CONTRIBUTIONS.c.device, CONTRIBUTIONS.c.digest)
            query = select(*columns).where(_of(settings), CONTRIBUTIONS.c.digest.is_not(None))
            return {
                str(row.device): str(row.digest)
                for row in connection.execute(query.order_by(columns[0]))
            }

    def sent(self, settings: RoundPlan) -> dict[str, float]:
        """Return device to time (seconds since the epoch) of those who said that they sent their
        update.
        """
        with self.database.read() as connection:
            query = select(CONTRIBUTIONS.c.device, CONTRIBUTIONS.c.sent_at).where(_of(settings))
            return {row.device: row.sent_at for row in connection.execute(query)}

    def forget(self, detector: str, keep_versions: int, keep_rounds: int) -> None:
        """Forget what only older rounds needed; what happened in them, and which versions there
        were, stays known.

        Args:
            detector: Whose.
            keep_versions: So many of the newest versions keep their parameters, beside those still
                needed: the pinned one, the base of the open round, and the parent that a version at
                    the gate may go back to.
            keep_rounds: So many of the newest rounds keep the names of who sent what when.
        """
        with self.database.write() as connection:
            rows = connection.execute(
                select(VERSIONS)
                .where(VERSIONS.c.detector == detector)
                .order_by(VERSIONS.c.round.desc())
            ).all()
            current = _round(connection, detector)
            needed = {row.version for row in rows[:keep_versions]} | {
                rows[0].parent for _ in rows[:1]
            }
            needed |= set(
                connection.execute(
                    select(PINS.c.version).where(PINS.c.detector == detector)
                ).scalars()
            )
            needed |= {current.settings.base_version} if current else set()
            gone = [row.version for row in rows if row.version not in needed and not row.forgotten]
            connection.execute(
                VERSIONS.update().where(VERSIONS.c.version.in_(gone)).values(forgotten=True)
            )
            connection.execute(SCORES.delete().where(SCORES.c.version.in_(gone)))
            old = (current.settings.round if current else 0) - keep_rounds
            mine = and_(CONTRIBUTIONS.c.detector == detector, CONTRIBUTIONS.c.round <= old)
            connection.execute(CONTRIBUTIONS.delete().where(mine))

    def kept_blobs(self) -> set[str]:
        """Return the digests still needed: of versions, their server states, and plain updates."""
        with self.database.read() as connection:
            kept = select(VERSIONS.c.version, VERSIONS.c.state).where(
                VERSIONS.c.forgotten.is_(False)
            )
            needed = {digest for row in connection.execute(kept) for digest in row}
            needed.update(connection.execute(select(CONTRIBUTIONS.c.digest)).scalars())
            return {digest for digest in needed if digest is not None}


def _of(settings: RoundPlan) -> ColumnElement[bool]:
    return and_(
        CONTRIBUTIONS.c.detector == settings.detector, CONTRIBUTIONS.c.round == settings.round
    )


def _round(connection: Connection, detector: str, number: int | None = None) -> Round | None:
    query = (
        select(ROUNDS).where(ROUNDS.c.detector == detector).order_by(ROUNDS.c.round.desc()).limit(1)
    )
    query = query if number is None else query.where(ROUNDS.c.round == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else round_of(row)


def _set_open(connection: Connection, settings: RoundPlan, **values: object) -> bool:
    where = and_(
        ROUNDS.c.detector == settings.detector,
        ROUNDS.c.round == settings.round,
        ROUNDS.c.state == OPEN,
    )
    return connection.execute(ROUNDS.update().where(where).values(values)).rowcount == 1


def _add_version(connection: Connection, version: Version, **values: object) -> None:
    known = connection.execute(
        select(VERSIONS).where(VERSIONS.c.version == version.version)
    ).first()
    if known is None:
        connection.execute(insert(VERSIONS).values(vars(version) | values))


def _release(connection: Connection, version: str, at: float) -> None:
    mine = and_(VERSIONS.c.version == version, VERSIONS.c.released_at.is_(None))
    if connection.execute(VERSIONS.update().where(mine).values(released_at=at)).rowcount:
        row = connection.execute(select(VERSIONS).where(VERSIONS.c.version == version)).one()
        said = f"The model of round {row.round} is given to the devices."
        note(connection, at, "released", said, detector=row.detector, round=row.round)


def _is_next(connection: Connection, version: Version) -> bool:
    """Return whether no version has that number or a higher one, and no round a higher one."""
    newest, mine = _round(connection, version.detector), VERSIONS.c.detector == version.detector
    newer = connection.execute(
        select(VERSIONS.c.version).where(mine, VERSIONS.c.round >= version.round)
    ).first()
    return newer is None and (newest is None or newest.settings.round <= version.round)


def _put_in_force(connection: Connection, version: Version, at: float, said: str) -> None:
    newest = _round(connection, version.detector)
    if newest is not None:
        move(connection, version.detector, newest.settings.round, ABANDONED, at, said)
    _add_version(connection, version)
    _release(connection, version.version, at)


def _note_device(connection: Connection, device: Device) -> None:
    row = {"address": device.address, "last_seen": device.last_seen}
    row |= {"waiting": True} if device.waiting else {}
    if (
        connection.execute(
            DEVICES.update().where(DEVICES.c.name == device.name).values(row)
        ).rowcount
        == 0
    ):
        connection.execute(insert(DEVICES).values(vars(device)))


def _note_participation(
    connection: Connection, device: str, detector: str, **values: object
) -> None:
    where = and_(PARTICIPATIONS.c.device == device, PARTICIPATIONS.c.detector == detector)
    if connection.execute(PARTICIPATIONS.update().where(where).values(values)).rowcount == 0:
        connection.execute(
            insert(PARTICIPATIONS).values(device=device, detector=detector, **values)
        )


def _note_sent(connection: Connection, device: Device, detector: str, number: int) -> None:
    """Note that a device sent its update, if that round is open and it is news."""
    current = _round(connection, detector, number)
    if current is None or current.state != OPEN:
        return
    mine = and_(_of(current.settings), CONTRIBUTIONS.c.device == device.name)
    if connection.execute(select(CONTRIBUTIONS.c.device).where(mine)).first() is None:
        row = {
            "detector": detector,
            "round": number,
            "device": device.name,
            "sent_at": device.last_seen,
        }
        connection.execute(insert(CONTRIBUTIONS).values(row))
        said = f"{device.name} has sent its update for round {number}."
        note(
            connection,
            device.last_seen,
            "sent",
            said,
            detector=detector,
            round=number,
            device=device.name,
        )


def _note_score(
    connection: Connection, detector: str, version: str, score: Score, at: float
) -> None:
    """Note what a version scored, if it is one of that detector and this is news; no score takes no
    score's place.
    """
    mine = and_(SCORES.c.version == version, SCORES.c.device == score.device)
    kept = connection.execute(select(SCORES).where(mine)).mappings().first()
    of_detector = and_(VERSIONS.c.version == version, VERSIONS.c.detector == detector)
    known = connection.execute(select(VERSIONS.c.version).where(of_detector)).first()
    same = kept is not None and (kept["accuracy"], kept["pictures"]) == (
        score.accuracy,
        score.pictures,
    )
    if known is None or same or (kept is not None and not score.pictures):
        return
    connection.execute(SCORES.delete().where(mine))
    connection.execute(insert(SCORES).values(version=version, **vars(score)))
    _sum_up_scores(connection, version)
    if score.pictures:
        share = f"{score.accuracy:.1%} of {score.pictures} validation pictures"
        said = f"{score.device} tells {share} apart with {version[:12]}."
        note(connection, at, "scored", said, detector=detector, device=score.device)


def _sum_up_scores(connection: Connection, version: str) -> None:
    """Write down with a version what its scores come to, for when they are gone."""
    pictures, said = (
        func.sum(SCORES.c.pictures),
        and_(SCORES.c.version == version, SCORES.c.pictures > 0),
    )
    figures = (
        func.sum(SCORES.c.accuracy * SCORES.c.pictures) / pictures,
        func.count(),
        func.coalesce(pictures, 0),
    )
    accuracy, devices, seen = connection.execute(select(*figures).where(said)).one()
    values = {"accuracy": accuracy, "scored_by": devices, "scored_pictures": seen}
    connection.execute(VERSIONS.update().where(VERSIONS.c.version == version).values(values))
