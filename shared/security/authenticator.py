"""Who may call what: a service's gate for signed messages, and its own standing in the federation.

Every service has an identity. Devices and the aggregator join the main server once
(`shared/security/joining.py`) and keep its public key; the main server knows its members, the
aggregator takes the roster from it, and a device answers to the main server alone.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from shared.errors import DoorbellError, Forbidden
from shared.names import MAIN_SERVER
from shared.protocol.joining import Admission, NewKey, Role
from shared.security.identity import Identity
from shared.security.joining import (
    JoinCode,
    Membership,
    join_request,
    new_key_statement,
    read_local_code,
)
from shared.security.nonces import Spending
from shared.security.signature_form import Headers
from shared.security.signing import Receiver, Verified, sign_response, verify_request
from shared.transport.http_client import HttpClient, Peer

AnyRole = Literal["main-server", "secure-aggregator", "device"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """Somebody who may call: a name, a role, a public key of 32 bytes, and why he may not any more."""

    name: str
    role: AnyRole
    public_key: bytes
    revoked: str | None = None


@dataclass(frozen=True)
class Caller:
    """Who sent a message whose signature held."""

    member: Member
    verified: Verified

    @property
    def name(self) -> str:
        """The member's name."""
        return self.member.name

    def must_be(self, name: str) -> None:
        """Refuse a message that speaks of another than its sender.

        Raises:
            Forbidden: It does.
        """
        if name != self.name:
            raise Forbidden(
                f"{self.name} cannot speak for {name}.",
                todo="Train and send again under its own name.",
            )


@dataclass(frozen=True)
class Gate:
    """What every signed message to one service passes through.

    Attributes:
        identity: The service's own key pair, which signs its answers.
        name: What the service is called: messages for anybody else are refused.
        members: Key fingerprint to the member who has that key, or None.
        nonces: What was spent.
        clock: Seconds since the epoch.
    """

    identity: Identity
    name: Callable[[], str]
    members: Callable[[str], Member | None]
    nonces: Spending
    clock: Callable[[], float] = time.time

    def admit(
        self,
        method: str,
        target: str,
        headers: Headers,
        read_body: Callable[[], bytes],
        roles: tuple[AnyRole, ...],
    ) -> Caller:
        """Verify a request and return who sent it.

        Args:
            method: As it came.
            target: Path and query as they came, not decoded.
            headers: As they came.
            read_body: Returns the body.
            roles: Who may send this message.

        Raises:
            NotSigned, BadSignature: The signature is missing or does not hold; logged.
            Forbidden: The sender was revoked, or has another role; logged.
        """
        known: dict[str, Member] = {}

        def key_of(key_id: str) -> bytes | None:
            if (member := self.members(key_id)) is None:
                return None
            known[key_id] = member
            return member.public_key

        receiver = Receiver(self.name(), key_of, self.nonces)
        try:
            verified = verify_request(method, target, headers, read_body, receiver, self.clock())
            caller = Caller(known[verified.key_id], verified)
            _check_standing(caller.member, roles)
        except DoorbellError as error:
            _log.warning("refused %s %s: %s", method, target.partition("?")[0], error.slug)
            raise
        return caller

    def sign_answer(
        self, status: int, headers: Headers, body: bytes, caller: Caller
    ) -> dict[str, str]:
        """Return the header fields that sign the answer to a caller."""
        return sign_response(status, headers, body, caller.verified, self.identity, self.clock())


@dataclass
class Standing:
    """A device's or the aggregator's place in the federation: joined, or joining when it is first
    needed.

    Attributes:
        identity: Its key pair.
        role: "device" or "secure-aggregator".
        wanted_name: What it asks to be called.
        folder: Its own folder, which keeps the membership.
        main_url: Where the main server is.
        http: How to reach it.
        join_code: What the environment holds, or None.
        local_codes: Where a main server on this machine leaves its codes.
    """

    identity: Identity
    role: Role
    wanted_name: str
    folder: Path
    main_url: str
    http: HttpClient
    join_code: str | None = field(repr=False)
    local_codes: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """What the federation calls it; before it has joined, what it asks to be called."""
        membership = Membership.load(self.folder)
        return membership.name if membership else self.wanted_name

    def main(self) -> Peer:
        """Return the main server, joined if need be.

        Raises:
            Forbidden: There is no join code, or the main server does not take it.
            InvalidMessage: Whoever answered is not the main server that made the code.
            PeerUnreachable: Nobody answered.
        """
        membership = Membership.load(self.folder) or self._join()
        return Peer(MAIN_SERVER, self.main_url, membership.main_public_key)

    def main_member(self, key_id: str) -> Member | None:
        """Return the main server as a member, if the key is its own; a device's gate asks this."""
        membership = Membership.load(self.folder)
        if membership is None or membership.main_key_id != key_id:
            return None
        return Member(MAIN_SERVER, "main-server", membership.main_public_key)

    def rename(self, name: str) -> None:
        """Take the name that the main server says this service has."""
        membership = Membership.load(self.folder)
        if membership is not None and membership.name != name:
            replace(membership, name=name).save(self.folder)

    def change_key(self, path: Path) -> Identity:
        """Replace this service's key, with the main server's consent; the service must not be
        running meanwhile.

        Args:
            path: Where the private key lies.

        Returns:
            The new key pair, in force at the main server and in the file.
        """
        beside = path.with_name(f"{path.name}.next")
        fresh = Identity.open(
            beside
        )  # that of an earlier try, if there was one: it may be in force already
        message = NewKey(fresh.public, fresh.sign(new_key_statement(self.identity.public)))
        main = self.main()
        self.http.post_json(f"{main.url}/new_key", message, main)
        beside.replace(path)
        return fresh

    def _join(self) -> Membership:
        with self._lock:
            if (membership := Membership.load(self.folder)) is not None:
                return membership
            if (text := self.join_code or read_local_code(self.local_codes, self.role)) is None:
                raise Forbidden(
                    f"{self.wanted_name} has not joined the federation, and there is no join code.",
                    todo="On the main server's machine run: python -m federation invite. Then set DOORBELL_JOIN_CODE "
                    "to what it prints, and start this service again.",
                )
            code = JoinCode.parse(text)
            request = join_request(code, self.wanted_name, self.role, self.identity)
            answer = self.http.post_json(f"{self.main_url}/join", request)
            membership = Membership.accept(code, request, answer.read(Admission))
            membership.save(self.folder)
            return membership


def _check_standing(member: Member, roles: tuple[AnyRole, ...]) -> None:
    if member.revoked is not None:
        raise Forbidden(
            f"{member.name} was revoked: {member.revoked}",
            todo="Ask the main server's operator. To come back, a service needs a new join code and an empty folder.",
            slug="revoked",
        )
    if member.role not in roles:
        raise Forbidden(
            f"{member.name} is a {member.role}, and may not send this.", slug="wrong-role"
        )


def change_key_from_command_line(standing: Standing, path: Path) -> None:
    """Replace a service's key, and say so, or say why not and end with exit code 1."""
    try:
        fresh = standing.change_key(path)
    except DoorbellError as error:
        sys.exit(str(error))
    sys.stdout.write(
        f"{standing.name} has a new key, {fresh.key_id}. Start it again if it is running.\n"
    )
