"""Who may call what: a service admits signed messages and signs its answers. Every service has one.

The main server knows its members, the aggregator takes the roster from it, and a device answers to
the main server alone (`shared/transport/enrolment.py` keeps its key).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shared.errors import DoorbellError, Forbidden
from shared.security.identity import Identity
from shared.security.signature_form import Headers
from shared.security.signing import Receiver, Verified, sign_response, verify_request
from shared.storage.nonces import Spending

AnyRole = Literal["main-server", "secure-aggregator", "device"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A member of the federation.

    Attributes:
        name: What the federation calls it.
        role: What it is, and so which messages it may send.
        public_key: Its Ed25519 key, 32 bytes.
        revoked: Why its messages are refused, or None.
    """

    name: str
    role: AnyRole
    public_key: bytes
    revoked: str | None = None


@dataclass(frozen=True)
class Caller:
    """The sender of a message whose signature held."""

    member: Member
    verified: Verified

    @property
    def name(self) -> str:
        """The member's name."""
        return self.member.name

    def must_be(self, name: str) -> None:
        """Refuse a message about another member than its sender.

        Args:
            name: The member that the message is about.

        Raises:
            Forbidden: It is another.
        """
        if name != self.name:
            raise Forbidden(
                f"{self.name} cannot speak for {name}.",
                todo="Train and send again under its own name.",
            )


@dataclass(frozen=True)
class Authenticator:
    """Verifies the signed messages to one service, and signs its answers.

    Attributes:
        identity: The service's own key pair, which signs its answers.
        name: Returns what the service is called now: messages for others are refused.
        members: Returns the member with a key's fingerprint, or None.
        nonces: The nonces that were spent.
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
        """Verify a request and return its sender.

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
            member = self.members(key_id)
            if member is None:
                return None
            known[key_id] = member
            return member.public_key

        receiver = Receiver(self.name(), key_of, self.nonces)
        try:
            verified = verify_request(method, target, headers, read_body, receiver, self.clock())
            caller = Caller(known[verified.key_id], verified)
            _check_member(caller.member, roles)
        except DoorbellError as error:
            # Without the query: it may hold what a stranger wants to see in the log.
            path = target.partition("?")[0]
            _log.warning("refused %s %s: %s", method, path, error.slug)
            raise
        return caller

    def sign_answer(
        self, status: int, headers: Headers, body: bytes, caller: Caller
    ) -> dict[str, str]:
        """Return the header fields that sign the answer to a caller."""
        return sign_response(status, headers, body, caller.verified, self.identity, self.clock())


def _check_member(member: Member, roles: tuple[AnyRole, ...]) -> None:
    if member.revoked is not None:
        raise Forbidden(
            f"{member.name} was revoked: {member.revoked}",
            todo="Ask the main server's operator. To come back, a service needs a new join code and"
            " an empty folder.",
            slug="revoked",
        )
    if member.role not in roles:
        raise Forbidden(
            f"{member.name} is a {member.role} and may not send this message.", slug="wrong-role"
        )
