"""What `doctor` looks at in who has joined whom, as far as the files and databases of this machine
tell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from federation.doctor.checks import Finding, Setup
from federation.doctor.checks_state import look
from federation.services import Service
from main_server.store.devices import all_devices
from main_server.store.members import MemberRecord, all_members, find_invitation, find_member
from main_server.store.records import Device
from main_server.store.store import Store
from shared.errors import DoorbellError
from shared.names import AGGREGATOR, MAIN_SERVER
from shared.protocol.joining import Role
from shared.security.identity import Identity
from shared.security.joining import JoinCode, Membership, read_local_code

_INVITE = "python -m federation invite"


def memberships(setup: Setup) -> Iterator[Finding]:
    """Look whether devices and the aggregator of this machine have joined, and what its main server
    knows of them.
    """
    with _main_store(setup) as store:
        for name, service in setup.here.items():
            if name != MAIN_SERVER:
                yield _membership(setup, name, service, store if setup.main_is_here else None)
        if store is not None:
            yield from _cohorts(setup, store)


def announced(setup: Setup) -> tuple[Device, ...]:
    """Return the devices that announced themselves to the main server of this machine, and where
    they can be called.
    """
    with _main_store(setup) as store:
        if store is not None:
            with store.read() as connection:
                return all_devices(connection)
    return ()  # they cannot be read


def identity_of(service: Service) -> Identity | None:
    """Return a service's key pair if it has one that can be used; `keys` says what is wrong with
    others.
    """
    path = service.folder / "identity.key"
    with suppress(DoorbellError):
        return Identity.open(path, service.secret) if path.exists() or service.secret else None
    return None


def membership_of(service: Service) -> Membership | None:
    """Return what a service keeps of its main server, or None before it has joined.

    Raises:
        ValueError: The file is damaged, or cannot be read.
    """
    try:
        return Membership.load(service.folder)
    except (DoorbellError, OSError, KeyError, TypeError) as error:
        raise ValueError("no membership") from error


@contextmanager
def _main_store(setup: Setup) -> Iterator[Store | None]:
    """Yield the main server's memory, if it is on this machine, of this version and whole;
    `databases` says why not.
    """
    service, store = setup.here.get(MAIN_SERVER), None
    if service is None or (service.url is None and not (service.folder / "state.sqlite3").exists()):
        yield None
        return
    with closing(look(service)) as database:
        with suppress(DoorbellError):
            if database.revision() == database.newest_revision:
                store = Store(database)
        with suppress(DoorbellError):
            yield store


def _membership(setup: Setup, name: str, service: Service, store: Store | None) -> Finding:
    """Return how a service stands; `store` is that of its main server, or None if that is
    elsewhere.
    """
    where, path = f"membership of {name}", service.folder / "membership.json"
    anew = (
        f"stop the service, empty {service.folder}, and start it with a new join code ({_INVITE})."
    )
    try:
        membership = membership_of(service)
    except ValueError:
        return Finding(
            where,
            "wrong",
            f"{path} is damaged, or cannot be read.",
            f"Put it back from a backup; or {anew}",
        )
    if membership is None:
        return _pending(
            setup, where, "secure-aggregator" if name == AGGREGATOR else "device", store
        )
    identity, main = (
        identity_of(service),
        identity_of(setup.here[MAIN_SERVER]) if setup.main_is_here else None,
    )
    if main is not None and main.key_id != membership.main_key_id:
        said = "It has joined another main server than the one on this machine: the keys differ."
        return Finding(where, "wrong", said, f"Fix DOORBELL_MAIN_URL; or, to join this one, {anew}")
    if store is None or identity is None:
        return Finding(where, "ok", f"It has joined, as {membership.name}.")
    with store.read() as connection:
        member = find_member(connection, identity.key_id)
    return _as_main_knows_it(where, membership.name, member, anew)


def _as_main_knows_it(where: str, name: str, member: MemberRecord | None, anew: str) -> Finding:
    if member is None:
        said = f"The main server knows nobody with the key of {name}."
        return Finding(
            where, "wrong", said, f"Restore a newer backup of the main server; or {anew}"
        )
    if member.revoked is not None:
        todo = f"If it is gone for good, remove its folder. To come back, {anew}"
        return Finding(where, "wrong", f"{member.name} was revoked: {member.revoked}", todo)
    if member.name != name:
        said = (
            f"The main server calls it {member.name}; it calls itself {name} until it "
            "next announces itself."
        )
        return Finding(where, "ok", said)
    return Finding(where, "ok", f"It has joined, as {name}.")


def _pending(setup: Setup, where: str, role: Role, store: Store | None) -> Finding:
    """Return what to expect when a service that has not joined yet joins."""
    text = setup.aggregator.join_code or read_local_code(setup.aggregator.local_codes, role)
    todo = f"On the main server's machine run: {_INVITE}{' --aggregator' * (role != 'device')}. "
    todo += "Then set DOORBELL_JOIN_CODE to what it prints, and start this service again."
    if text is None:
        return Finding(where, "wrong", "It has not joined, and there is no join code.", todo)
    try:
        code = JoinCode.parse(text)
    except DoorbellError as error:
        return Finding.of(where, error)
    if store is not None:
        with store.read() as connection:
            invitation = find_invitation(connection, code.invitation)
        if invitation is None or invitation.role != role:
            said = (
                "It has not joined, and its join code is none of this machine's main "
                f"server for a {role}."
            )
            return Finding(where, "wrong", said, todo)
        if invitation.uses_left < 1 or invitation.expires_at <= time.time():
            return Finding(
                where,
                "wrong",
                "It has not joined, and its join code is used up or has expired.",
                todo,
            )
    return Finding(
        where, "ok", "It has not joined yet; it has a join code, and joins when it first needs to."
    )


def _cohorts(setup: Setup, store: Store) -> Iterator[Finding]:
    with store.read() as connection:
        members = all_members(connection)
    joined = sum(member.role == "device" and member.revoked is None for member in members)
    wanted = (
        ("DOORBELL_MIN_COHORT", setup.main.min_cohort, "no round can end"),
        (
            "DOORBELL_TARGET_COHORT",
            setup.main.target_cohort or 0,
            "every round waits for its deadline",
        ),
    )
    for name, number, comes_of_it in wanted:
        if 0 < joined < number:
            said = f"{name} is {number}, and {joined} devices have joined: {comes_of_it}."
            yield Finding("settings", "warning", said, f"Invite more devices, or lower {name}.")
