"""Members of the federation, and the join codes that are out."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, and_, insert, select

from main_server.store.events import add_event
from main_server.store.tables import INVITATIONS, MEMBERS
from shared.protocol.joining import Role


@dataclass(frozen=True)
class MemberRecord:
    """A service that joined; a revoked name may join anew, with another key.

    Attributes:
        key_id: Fingerprint of its public key.
        name: What it is called in the federation.
        role: "device" or "secure-aggregator".
        public_key: Its Ed25519 public key, 32 bytes.
        joined_at: Seconds since the epoch.
        revoked: Why its messages are refused, or None.
    """

    key_id: str
    name: str
    role: Role
    public_key: bytes
    joined_at: float
    revoked: str | None


@dataclass(frozen=True)
class Invitation:
    """A join code that is out.

    Attributes:
        invitation: Its public half.
        secret: Its secret half.
        role: For which role.
        uses_left: How often it may still be used.
        expires_at: Until when, in seconds since the epoch.
    """

    invitation: str
    secret: bytes = field(repr=False)
    role: Role
    uses_left: int
    expires_at: float


def invite(connection: Connection, invitation: Invitation) -> None:
    """Note that a join code is out; one that is known already stays as it is."""
    if find_invitation(connection, invitation.invitation) is None:
        connection.execute(insert(INVITATIONS).values(vars(invitation)))


def find_invitation(connection: Connection, invitation: str) -> Invitation | None:
    """Return a join code that is out, used up and expired ones too, or None."""
    query = select(INVITATIONS).where(_is_code(invitation))
    row = connection.execute(query).mappings().first()
    return None if row is None else Invitation(**row)


def admit(connection: Connection, invitation: str, member: MemberRecord, now: float) -> str | None:
    """Add a member by one use of a join code; the same member twice costs one use.

    Args:
        connection: The transaction.
        invitation: The join code's public half.
        member: Who joins.
        now: Seconds since the epoch.

    Returns:
        Why not, or None.
    """
    known = find_member(connection, member.key_id)
    if known is not None:
        # An answer may have been lost: the same request again is answered as it was at first.
        if known.name == member.name and known.revoked is None:
            return None
        return "that key has joined before, under another name, or was revoked"
    # Two members of one name could not be told apart in a cohort.
    if _is_taken(connection, member.name):
        return f"there is a {member.name} already, with another key"
    if not _use(connection, invitation, now):
        return "the join code is used up or has expired"
    connection.execute(insert(MEMBERS).values(vars(member)))
    said = f"{member.name} has joined as a {member.role}."
    add_event(connection, now, "joined", said, device=member.name)
    return None


def find_member(connection: Connection, key_id: str) -> MemberRecord | None:
    """Return the member with a key, revoked or not, or None."""
    query = select(MEMBERS).where(MEMBERS.c.key_id == key_id)
    row = connection.execute(query).mappings().first()
    return None if row is None else MemberRecord(**row)


def all_members(connection: Connection) -> tuple[MemberRecord, ...]:
    """Return everybody who ever joined, by name and time."""
    query = select(MEMBERS).order_by(MEMBERS.c.name, MEMBERS.c.joined_at)
    rows = connection.execute(query).mappings()
    return tuple(MemberRecord(**row) for row in rows)


def set_revoked(connection: Connection, name: str, reason: str) -> bool:
    """Mark the member of that name as revoked; False if there is none."""
    change = MEMBERS.update().where(_is_member(name)).values(revoked=reason)
    return bool(connection.execute(change).rowcount)


def set_name(connection: Connection, old: str, new: str) -> bool:
    """Rename a device that is not revoked; False if there is none, or the new name is taken."""
    if _is_taken(connection, new):
        return False
    mine = and_(_is_member(old), MEMBERS.c.role == "device")
    return connection.execute(MEMBERS.update().where(mine).values(name=new)).rowcount == 1


def change_key(connection: Connection, key_id: str, new_key_id: str, public_key: bytes) -> bool:
    """Replace a member's key; False if the member is gone, or the new key is known."""
    if find_member(connection, new_key_id) is not None:
        return False
    mine = and_(MEMBERS.c.key_id == key_id, MEMBERS.c.revoked.is_(None))
    values = {"key_id": new_key_id, "public_key": public_key}
    return bool(connection.execute(MEMBERS.update().where(mine).values(values)).rowcount)


def _use(connection: Connection, invitation: str, now: float) -> bool:
    """Take one use of a join code; False if it has none left, or has expired."""
    # One statement looks and takes: a use cannot be taken twice.
    usable = and_(
        _is_code(invitation),
        INVITATIONS.c.uses_left > 0,
        INVITATIONS.c.expires_at > now,
    )
    fewer = {"uses_left": INVITATIONS.c.uses_left - 1}
    return connection.execute(INVITATIONS.update().where(usable).values(fewer)).rowcount == 1


def _is_taken(connection: Connection, name: str) -> bool:
    return connection.execute(select(MEMBERS).where(_is_member(name))).first() is not None


def _is_member(name: str) -> ColumnElement[bool]:
    return and_(MEMBERS.c.name == name, MEMBERS.c.revoked.is_(None))


def _is_code(invitation: str) -> ColumnElement[bool]:
    return INVITATIONS.c.invitation == invitation
