"""What the main server remembers: devices, rounds, versions of the models, and who has which.

States of a round here: open (updates are collected) → published (a version came of it), failed (its sum made no
sense) or abandoned (the operator changed the settings). One round per detector is open at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    insert,
    select,
)

from shared.database import open_database
from shared.membership import Role
from shared.round_settings import RoundSettings, parse_round_settings

_metadata = MetaData()
_members = Table(
    "members",
    _metadata,
    Column("key_id", String, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("role", String, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("joined_at", Float, nullable=False),
    Column("revoked", String),
)
_invitations = Table(
    "invitations",
    _metadata,
    Column("invitation", String, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("role", String, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
)
_devices = Table(
    "devices",
    _metadata,
    Column("name", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("last_seen", Float, nullable=False),
)
_participations = Table(
    "participations",
    _metadata,
    Column("device", String, ForeignKey("devices.name"), primary_key=True),
    Column("detector", String, primary_key=True),
    Column("trained_round", Integer),
    Column("delivered", String),
)
_rounds = Table(
    "rounds",
    _metadata,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("settings", String, nullable=False),
    Column("state", String, nullable=False),
    Column("vouched", String, nullable=False, default="[]"),
    Column("cohort", String, nullable=False, default="[]"),
    Column("aggregate", String),
    Column("clamped", Integer, nullable=False, default=0),
)
_versions = Table(
    "versions",
    _metadata,
    Column("version", String, primary_key=True),
    Column("detector", String, nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("architecture", String, nullable=False),
    Column("manifest", String, nullable=False),
)
_plain_updates = Table(
    "plain_updates",
    _metadata,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("device", String, primary_key=True),
    Column("digest", String, nullable=False),
)


@dataclass(frozen=True)
class Joined:
    """Somebody who joined: `revoked` is why he may not call any more, or None; a revoked name may join anew."""

    key_id: str
    name: str
    role: Role
    public_key: bytes
    joined_at: float
    revoked: str | None


@dataclass(frozen=True)
class Invitation:
    """A join code that is out: how often it may still be used, and until when (seconds since the epoch)."""

    invitation: str
    secret: bytes = field(repr=False)
    role: Role
    uses_left: int
    expires_at: float


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


class Store:
    """The main server's database; each method is one transaction."""

    def __init__(self, folder: Path) -> None:
        self._engine = open_database(folder, _metadata)

    def invite(self, invitation: Invitation) -> None:
        """Note that a join code is out; one that is known already stays as it is."""
        with self._engine.begin() as connection:
            if connection.execute(select(_invitations).where(_invited(invitation.invitation))).first() is None:
                connection.execute(insert(_invitations).values(vars(invitation)))

    def invitation(self, invitation: str) -> Invitation | None:
        """Return a join code that is out, used up and expired ones too, or None."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_invitations).where(_invited(invitation))).mappings().first()
            return None if row is None else Invitation(**row)

    def admit(self, invitation: str, member: Joined, now: float) -> str | None:
        """Add a member by one use of a join code; return why not, or None. The same member twice costs one use."""
        with self._engine.begin() as connection:
            known = connection.execute(select(_members).where(_members.c.key_id == member.key_id)).mappings().first()
            if known is not None:
                same = known["name"] == member.name and known["revoked"] is None
                return None if same else "that key has joined before, under another name, or was revoked"
            named = and_(_members.c.name == member.name, _members.c.revoked.is_(None))
            if connection.execute(select(_members).where(named)).first() is not None:
                return f"there is a {member.name} already, with another key"
            usable = and_(_invited(invitation), _invitations.c.uses_left > 0, _invitations.c.expires_at > now)
            used = connection.execute(
                _invitations.update().where(usable).values(uses_left=_invitations.c.uses_left - 1)
            )
            if used.rowcount != 1:
                return "the join code is used up or has expired"
            connection.execute(insert(_members).values(vars(member)))
            return None

    def member(self, key_id: str) -> Joined | None:
        """Return the member with a key, revoked or not, or None."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_members).where(_members.c.key_id == key_id)).mappings().first()
            return None if row is None else Joined(**row)

    def members(self) -> tuple[Joined, ...]:
        """Return everybody who ever joined, by name and time."""
        with self._engine.begin() as connection:
            query = select(_members).order_by(_members.c.name, _members.c.joined_at)
            return tuple(Joined(**row) for row in connection.execute(query).mappings())

    def revoke(self, name: str, reason: str) -> bool:
        """Revoke the member of that name, and end its part in every round; False if there is none."""
        with self._engine.begin() as connection:
            where = and_(_members.c.name == name, _members.c.revoked.is_(None))
            revoked = connection.execute(_members.update().where(where).values(revoked=reason)).rowcount
            _end_participations(connection, name)
            return bool(revoked)

    def rename(self, old: str, new: str) -> bool:
        """Rename a device that is not revoked; False if there is none, or the new name is taken."""
        with self._engine.begin() as connection:
            mine = and_(_members.c.name == old, _members.c.role == "device", _members.c.revoked.is_(None))
            taken = and_(_members.c.name == new, _members.c.revoked.is_(None))
            if connection.execute(select(_members).where(taken)).first() is not None:
                return False
            if connection.execute(_members.update().where(mine).values(name=new)).rowcount != 1:
                return False
            _end_participations(connection, old)
            connection.execute(_devices.delete().where(_devices.c.name == old))
            return True

    def change_key(self, key_id: str, new_key_id: str, public_key: bytes) -> bool:
        """Replace a member's key; False if the member is gone, or the new key is known."""
        with self._engine.begin() as connection:
            if connection.execute(select(_members).where(_members.c.key_id == new_key_id)).first() is not None:
                return False
            mine = and_(_members.c.key_id == key_id, _members.c.revoked.is_(None))
            values = {"key_id": new_key_id, "public_key": public_key}
            return bool(connection.execute(_members.update().where(mine).values(values)).rowcount)

    def note_device(self, device: Device, detectors: Mapping[str, int | None]) -> None:
        """Note that a device is there, where it can be reached, and the last round it trained per detector."""
        with self._engine.begin() as connection:
            known = connection.execute(select(_devices).where(_devices.c.name == device.name)).first()
            row = {"address": device.address, "last_seen": device.last_seen}
            if known:
                connection.execute(_devices.update().where(_devices.c.name == device.name).values(row))
            else:
                connection.execute(insert(_devices).values(name=device.name, **row))
            for detector, trained_round in detectors.items():
                _note_participation(connection, device.name, detector, trained_round)

    def devices(self) -> tuple[Device, ...]:
        """Return every device, by name."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(_devices).order_by(_devices.c.name)).mappings()
            return tuple(Device(**row) for row in rows)

    def participations(self, detector: str | None = None) -> tuple[Participation, ...]:
        """Return who takes part in a detector, or in any, by detector and name."""
        with self._engine.begin() as connection:
            query = select(_participations).order_by(_participations.c.detector, _participations.c.device)
            query = query.where(_participations.c.detector == detector) if detector else query
            return tuple(Participation(**row) for row in connection.execute(query).mappings())

    def note_delivery(self, device: str, detector: str, version: str) -> None:
        """Note that a device has a version."""
        where = and_(_participations.c.device == device, _participations.c.detector == detector)
        with self._engine.begin() as connection:
            connection.execute(_participations.update().where(where).values(delivered=version))

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
            connection.execute(insert(_rounds).values(row))
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
            query = select(_versions).where(_versions.c.detector == detector)
            row = connection.execute(query.order_by(_versions.c.round.desc()).limit(1)).mappings().first()
            return None if row is None else Version(**row)

    def version(self, version: str) -> Version | None:
        """Return a version that was published, or None if it never was."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_versions).where(_versions.c.version == version)).mappings().first()
            return None if row is None else Version(**row)

    def detectors(self) -> tuple[str, ...]:
        """Return every detector that a device takes part in, in alphabetical order."""
        with self._engine.begin() as connection:
            query = select(_participations.c.detector).distinct().order_by(_participations.c.detector)
            return tuple(connection.execute(query).scalars())

    def keep_plain_update(self, settings: RoundSettings, device: str, digest: str) -> bool:
        """Keep a plain update, replacing an earlier one of the device; False if the round is closed."""
        with self._engine.begin() as connection:
            current = _round(connection, settings.detector, settings.round)
            if current is None or current.state != "open":
                return False
            connection.execute(_plain_updates.delete().where(_of(settings), _plain_updates.c.device == device))
            row = {"detector": settings.detector, "round": settings.round, "device": device, "digest": digest}
            connection.execute(insert(_plain_updates).values(row))
            return True

    def plain_updates(self, settings: RoundSettings) -> dict[str, str]:
        """Return device to digest of the plain updates of a round, by device name."""
        with self._engine.begin() as connection:
            columns = (_plain_updates.c.device, _plain_updates.c.digest)
            query = select(*columns).where(_of(settings)).order_by(_plain_updates.c.device)
            return {str(row.device): str(row.digest) for row in connection.execute(query)}


def _invited(invitation: str) -> ColumnElement[bool]:
    return _invitations.c.invitation == invitation


def _of(settings: RoundSettings) -> ColumnElement[bool]:
    return and_(_plain_updates.c.detector == settings.detector, _plain_updates.c.round == settings.round)


def _round(connection: Connection, detector: str, number: int | None = None) -> Round | None:
    query = select(_rounds).where(_rounds.c.detector == detector).order_by(_rounds.c.round.desc()).limit(1)
    query = query if number is None else query.where(_rounds.c.round == number)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    settings = parse_round_settings(json.loads(row["settings"]))
    return Round(settings, row["state"], tuple(json.loads(row["cohort"])), row["aggregate"], row["clamped"])


def _set(connection: Connection, settings: RoundSettings, **values: object) -> None:
    where = and_(_rounds.c.detector == settings.detector, _rounds.c.round == settings.round)
    connection.execute(_rounds.update().where(where).values(values))


def _add_version(connection: Connection, version: Version) -> None:
    known = connection.execute(select(_versions).where(_versions.c.version == version.version)).first()
    if known is None:
        connection.execute(insert(_versions).values(vars(version)))


def _end_participations(connection: Connection, device: str) -> None:
    """Forget a device's part in every detector, plain updates too; give up open rounds that it was vouched for in."""
    for row in connection.execute(select(_rounds).where(_rounds.c.state == "open")).mappings().all():
        if device in json.loads(row["vouched"]):
            where = and_(_rounds.c.detector == row["detector"], _rounds.c.round == row["round"])
            connection.execute(_rounds.update().where(where).values(state="abandoned"))
    connection.execute(_participations.delete().where(_participations.c.device == device))
    connection.execute(_plain_updates.delete().where(_plain_updates.c.device == device))


def _note_participation(connection: Connection, device: str, detector: str, trained_round: int | None) -> None:
    where = and_(_participations.c.device == device, _participations.c.detector == detector)
    if connection.execute(select(_participations).where(where)).first():
        connection.execute(_participations.update().where(where).values(trained_round=trained_round))
    else:
        connection.execute(
            insert(_participations).values(device=device, detector=detector, trained_round=trained_round)
        )
