"""What the main server remembers: devices, rounds, versions of the models, and who has which.

States of a round here: open (updates are collected) → published (a version came of it), failed (its sum made no
sense) or abandoned (the operator changed the settings). One round per detector is open at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, insert, select

from main_server.member_store import MemberStore
from main_server.tables import DEVICES, PARTICIPATIONS, PLAIN_UPDATES, ROUNDS, VERSIONS
from shared.round_settings import RoundSettings, parse_round_settings


@dataclass(frozen=True)
class Device:
    """A device that announced itself; `last_seen` is seconds since the epoch."""

    name: str
    address: str
    last_seen: float


@dataclass(frozen=True)
class Participation:
    """One device's part in one detector: the last round it trained, the version it was last given."""

    device: str
    detector: str
    trained_round: int | None
    delivered: str | None


@dataclass(frozen=True)
class Round:
    """One round; `aggregate` is the digest of what it was made from, `clamped` counts coordinates."""

    settings: RoundSettings
    state: str
    cohort: tuple[str, ...]
    aggregate: str | None
    clamped: int


@dataclass(frozen=True)
class Version:
    """One version of a detector's global model; `round` made it, 0 for version 0; `manifest` is signed."""

    version: str
    detector: str
    round: int
    architecture: str
    manifest: str


class Store(MemberStore):
    """The main server's database; each method is one transaction."""

    def note_device(self, device: Device, detectors: Mapping[str, int | None]) -> None:
        """Note that a device is there, where it can be reached, and the last round it trained per detector."""
        with self._engine.begin() as connection:
            known = connection.execute(select(DEVICES).where(DEVICES.c.name == device.name)).first()
            row = {"address": device.address, "last_seen": device.last_seen}
            if known:
                connection.execute(DEVICES.update().where(DEVICES.c.name == device.name).values(row))
            else:
                connection.execute(insert(DEVICES).values(name=device.name, **row))
            for detector, trained_round in detectors.items():
                _note_participation(connection, device.name, detector, trained_round)

    def devices(self) -> tuple[Device, ...]:
        """Return every device, by name."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(DEVICES).order_by(DEVICES.c.name)).mappings()
            return tuple(Device(**row) for row in rows)

    def participations(self, detector: str | None = None) -> tuple[Participation, ...]:
        """Return who takes part in a detector, or in any, by detector and name."""
        with self._engine.begin() as connection:
            query = select(PARTICIPATIONS).order_by(PARTICIPATIONS.c.detector, PARTICIPATIONS.c.device)
            query = query.where(PARTICIPATIONS.c.detector == detector) if detector else query
            return tuple(Participation(**row) for row in connection.execute(query).mappings())

    def note_delivery(self, device: str, detector: str, version: str) -> None:
        """Note that a device has a version."""
        where = and_(PARTICIPATIONS.c.device == device, PARTICIPATIONS.c.detector == detector)
        with self._engine.begin() as connection:
            connection.execute(PARTICIPATIONS.update().where(where).values(delivered=version))

    def newest_round(self, detector: str) -> Round | None:
        """Return the newest round of a detector, or None if it has had none."""
        with self._engine.begin() as connection:
            return _round(connection, detector)

    def round(self, detector: str, number: int) -> Round | None:
        """Return one round, or None if there was no such."""
        with self._engine.begin() as connection:
            return _round(connection, detector, number)

    def open_round(self, settings: RoundSettings) -> Round:
        """Open a round unless the detector has that one or a newer already; return its newest."""
        with self._engine.begin() as connection:
            newest = _round(connection, settings.detector)
            if newest is not None and newest.settings.round >= settings.round:
                return newest
            if newest is not None and newest.state == "open":
                _set(connection, newest.settings, state="abandoned")
            text = json.dumps(settings.to_json())
            row = {"detector": settings.detector, "round": settings.round, "settings": text, "state": "open"}
            connection.execute(insert(ROUNDS).values(row))
            return Round(settings, "open", (), None, 0)

    def vouch(self, settings: RoundSettings, devices: list[str]) -> None:
        """Note whose seeds opened in a round: their updates may be in its sum from now on."""
        with self._engine.begin() as connection:
            _set(connection, settings, vouched=json.dumps(devices))

    def publish(
        self, settings: RoundSettings, cohort: tuple[str, ...], aggregate: str, clamped: int, version: Version
    ) -> Round:
        """Close an open round with the version that came of it, once; return the round as it then stands."""
        with self._engine.begin() as connection:
            current = _round(connection, settings.detector, settings.round)
            if current is not None and current.state == "open":
                values = {"aggregate": aggregate, "cohort": json.dumps(cohort), "clamped": clamped}
                _set(connection, settings, state="published", **values)
                _add_version(connection, version)
            return _round(connection, settings.detector, settings.round) or Round(settings, "open", (), None, 0)

    def fail(self, settings: RoundSettings, aggregate: str) -> None:
        """Close an open round whose sum made no sense."""
        with self._engine.begin() as connection:
            current = _round(connection, settings.detector, settings.round)
            if current is not None and current.state == "open":
                _set(connection, settings, state="failed", aggregate=aggregate)

    def add_version(self, version: Version) -> None:
        """Add a version that no round made, if it is new."""
        with self._engine.begin() as connection:
            _add_version(connection, version)

    def newest_version(self, detector: str) -> Version | None:
        """Return the newest version of a detector's model, or None if there is none."""
        with self._engine.begin() as connection:
            query = select(VERSIONS).where(VERSIONS.c.detector == detector)
            row = connection.execute(query.order_by(VERSIONS.c.round.desc()).limit(1)).mappings().first()
            return None if row is None else Version(**row)

    def version(self, version: str) -> Version | None:
        """Return a version that was published, or None if it never was."""
        with self._engine.begin() as connection:
            row = connection.execute(select(VERSIONS).where(VERSIONS.c.version == version)).mappings().first()
            return None if row is None else Version(**row)

    def detectors(self) -> tuple[str, ...]:
        """Return every detector that a device takes part in, in alphabetical order."""
        with self._engine.begin() as connection:
            query = select(PARTICIPATIONS.c.detector).distinct().order_by(PARTICIPATIONS.c.detector)
            return tuple(connection.execute(query).scalars())

    def keep_plain_update(self, settings: RoundSettings, device: str, digest: str) -> bool:
        """Keep a plain update, replacing an earlier one of the device; False if the round is closed."""
        with self._engine.begin() as connection:
            current = _round(connection, settings.detector, settings.round)
            if current is None or current.state != "open":
                return False
            connection.execute(PLAIN_UPDATES.delete().where(_of(settings), PLAIN_UPDATES.c.device == device))
            row = {"detector": settings.detector, "round": settings.round, "device": device, "digest": digest}
            connection.execute(insert(PLAIN_UPDATES).values(row))
            return True

    def plain_updates(self, settings: RoundSettings) -> dict[str, str]:
        """Return device to digest of the plain updates of a round, by device name."""
        with self._engine.begin() as connection:
            columns = (PLAIN_UPDATES.c.device, PLAIN_UPDATES.c.digest)
            query = select(*columns).where(_of(settings)).order_by(PLAIN_UPDATES.c.device)
            return {str(row.device): str(row.digest) for row in connection.execute(query)}


def _of(settings: RoundSettings) -> ColumnElement[bool]:
    return and_(PLAIN_UPDATES.c.detector == settings.detector, PLAIN_UPDATES.c.round == settings.round)


def _round(connection: Connection, detector: str, number: int | None = None) -> Round | None:
    query = select(ROUNDS).where(ROUNDS.c.detector == detector).order_by(ROUNDS.c.round.desc()).limit(1)
    query = query if number is None else query.where(ROUNDS.c.round == number)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    settings = parse_round_settings(json.loads(row["settings"]))
    return Round(settings, row["state"], tuple(json.loads(row["cohort"])), row["aggregate"], row["clamped"])


def _set(connection: Connection, settings: RoundSettings, **values: object) -> None:
    where = and_(ROUNDS.c.detector == settings.detector, ROUNDS.c.round == settings.round)
    connection.execute(ROUNDS.update().where(where).values(values))


def _add_version(connection: Connection, version: Version) -> None:
    known = connection.execute(select(VERSIONS).where(VERSIONS.c.version == version.version)).first()
    if known is None:
        connection.execute(insert(VERSIONS).values(vars(version)))


def _note_participation(connection: Connection, device: str, detector: str, trained_round: int | None) -> None:
    where = and_(PARTICIPATIONS.c.device == device, PARTICIPATIONS.c.detector == detector)
    if connection.execute(select(PARTICIPATIONS).where(where)).first():
        connection.execute(PARTICIPATIONS.update().where(where).values(trained_round=trained_round))
    else:
        connection.execute(insert(PARTICIPATIONS).values(device=device, detector=detector, trained_round=trained_round))
