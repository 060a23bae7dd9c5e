"""What the main server remembers of who has joined, and of the join codes that are out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, insert, select

from main_server.store.states import ABANDONED, OPEN, move, note
from main_server.store.tables import (
    CONTRIBUTIONS,
    DEVICES,
    INVITATIONS,
    MEMBERS,
    MIGRATIONS,
    PARTICIPATIONS,
    PERFORMANCES,
    ROUNDS,
)
from shared.protocol.joining import Role
from shared.storage.database import Database


@dataclass(frozen=True)
class Joined:
    """Somebody who joined: `revoked` is why he may not call any more, or None; a revoked name may
    join anew.
    """

    key_id: str
    name: str
    role: Role
    public_key: bytes
    joined_at: float
    revoked: str | None


@dataclass(frozen=True)
class Invitation:
    """A join code that is out: how often it may still be used, and until when (seconds since the
    epoch).
    """

    invitation: str
    secret: bytes = field(repr=False)
    role: Role
    uses_left: int
    expires_at: float


class MemberStore:
    """The part of the main server's database that is about members; each method is one transaction."""

    def __init__(
        self, folder: Path, url: str | None = None, database: Database | None = None
    ) -> None:
        self.database = database or Database.open(folder, MIGRATIONS, url)

    def invite(self, invitation: Invitation) -> None:
        """Note that a join code is out; one that is known already stays as it is."""
        with self.database.write() as connection:
            if (
                connection.execute(
                    select(INVITATIONS).where(_invited(invitation.invitation))
                ).first()
                is None
            ):
                connection.execute(insert(INVITATIONS).values(vars(invitation)))

    def invitation(self, invitation: str) -> Invitation | None:
        """Return a join code that is out, used up and expired ones too, or None."""
        with self.database.read() as connection:
            row = (
                connection.execute(select(INVITATIONS).where(_invited(invitation)))
                .mappings()
                .first()
            )
            return None if row is None else Invitation(**row)

    def admit(self, invitation: str, member: Joined, now: float) -> str | None:
        """Add a member by one use of a join code; return why not, or None.

        The same member twice costs one use.
        """
        with self.database.write() as connection:
            known = (
                connection.execute(select(MEMBERS).where(MEMBERS.c.key_id == member.key_id))
                .mappings()
                .first()
            )
            if known is not None:
                same = known["name"] == member.name and known["revoked"] is None
                return (
                    None
                    if same
                    else "that key has joined before, under another name, or was revoked"
                )
            named = and_(MEMBERS.c.name == member.name, MEMBERS.c.revoked.is_(None))
            if connection.execute(select(MEMBERS).where(named)).first() is not None:
                return f"there is a {member.name} already, with another key"
            usable = and_(
                _invited(invitation), INVITATIONS.c.uses_left > 0, INVITATIONS.c.expires_at > now
            )
            used = connection.execute(
                INVITATIONS.update().where(usable).values(uses_left=INVITATIONS.c.uses_left - 1)
            )
            if used.rowcount != 1:
                return "the join code is used up or has expired"
            connection.execute(insert(MEMBERS).values(vars(member)))
            note(
                connection,
                now,
                "joined",
                f"{member.name} has joined as a {member.role}.",
                device=member.name,
            )
            return None

    def member(self, key_id: str) -> Joined | None:
        """Return the member with a key, revoked or not, or None."""
        with self.database.read() as connection:
            row = (
                connection.execute(select(MEMBERS).where(MEMBERS.c.key_id == key_id))
                .mappings()
                .first()
            )
            return None if row is None else Joined(**row)

    def members(self) -> tuple[Joined, ...]:
        """Return everybody who ever joined, by name and time."""
        with self.database.read() as connection:
            query = select(MEMBERS).order_by(MEMBERS.c.name, MEMBERS.c.joined_at)
            return tuple(Joined(**row) for row in connection.execute(query).mappings())

    def revoke(self, name: str, reason: str, at: float) -> bool:
        """Revoke the member of that name, and end its part in every round; False if there is none."""
        with self.database.write() as connection:
            where = and_(MEMBERS.c.name == name, MEMBERS.c.revoked.is_(None))
            revoked = connection.execute(
                MEMBERS.update().where(where).values(revoked=reason)
            ).rowcount
            _end_participations(connection, name, at)
            if revoked:
                note(connection, at, "revoked", f"{name} is revoked: {reason}", device=name)
            return bool(revoked)

    def rename(self, old: str, new: str, at: float) -> bool:
        """Rename a device that is not revoked; False if there is none, or the new name is taken."""
        with self.database.write() as connection:
            mine = and_(
                MEMBERS.c.name == old, MEMBERS.c.role == "device", MEMBERS.c.revoked.is_(None)
            )
            taken = and_(MEMBERS.c.name == new, MEMBERS.c.revoked.is_(None))
            if connection.execute(select(MEMBERS).where(taken)).first() is not None:
                return False
            if connection.execute(MEMBERS.update().where(mine).values(name=new)).rowcount != 1:
                return False
            connection.execute(
                PERFORMANCES.update().where(PERFORMANCES.c.device == old).values(device=new)
            )
            _end_participations(connection, old, at)
            connection.execute(DEVICES.delete().where(DEVICES.c.name == old))
            note(connection, at, "renamed", f"{old} is called {new} now.", device=new)
            return True

    def change_key(self, key_id: str, new_key_id: str, public_key: bytes) -> bool:
        """Replace a member's key; False if the member is gone, or the new key is known."""
        with self.database.write() as connection:
            if (
                connection.execute(select(MEMBERS).where(MEMBERS.c.key_id == new_key_id)).first()
                is not None
            ):
                return False
            mine = and_(MEMBERS.c.key_id == key_id, MEMBERS.c.revoked.is_(None))
            values = {"key_id": new_key_id, "public_key": public_key}
            return bool(connection.execute(MEMBERS.update().where(mine).values(values)).rowcount)


def _invited(invitation: str) -> ColumnElement[bool]:
    return INVITATIONS.c.invitation == invitation


def _end_participations(connection: Connection, device: str, at: float) -> None:
    """Forget a device's part in every detector, with all that it sent; give up open rounds it was
    vouched for in.
    """
    for row in connection.execute(select(ROUNDS).where(ROUNDS.c.state == OPEN)).mappings().all():
        if device in json.loads(row["vouched"]):
            said = f"Round {row['round']} is given up: {device} may be in its sum, and is not a member any more."
            move(connection, row["detector"], row["round"], ABANDONED, at, said)
    connection.execute(PARTICIPATIONS.delete().where(PARTICIPATIONS.c.device == device))
    connection.execute(CONTRIBUTIONS.delete().where(CONTRIBUTIONS.c.device == device))
    connection.execute(PERFORMANCES.delete().where(PERFORMANCES.c.device == device))
