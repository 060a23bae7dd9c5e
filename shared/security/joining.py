"""Joining a federation: a code that proves both ends, and what a member keeps of it.

A join code carries a secret and the fingerprint of the main server's key. A joining service proves
that it knows the secret and owns its key; the main server proves the same of itself. The secret
itself never travels: both sides send an HMAC (RFC 2104) over everything that is being agreed on, as
in a key-confirmed exchange.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import InvalidMessage, SettingsError
from shared.names import AGGREGATOR, MAIN_SERVER, checked_name
from shared.protocol.joining import Admission, JoinRequest, Role
from shared.security.identity import Identity, fingerprint, verify
from shared.storage.blobs import write_durably

_SECRET_BYTES = 20
_CODE = re.compile(r"doorbell-([a-z2-7]{32})-([0-9a-f]{32})")


@dataclass(frozen=True)
class JoinCode:
    """What `python -m federation invite` prints.

    Attributes:
        secret: 20 random bytes, known to the main server.
        main_key_id: Fingerprint of the main server's key.
    """

    secret: bytes = field(repr=False)
    main_key_id: str

    @classmethod
    def make(cls, main_key_id: str) -> JoinCode:
        """Return a fresh code."""
        return cls(secrets.token_bytes(_SECRET_BYTES), main_key_id)

    @classmethod
    def parse(cls, text: str) -> JoinCode:
        """Return the code in `text`.

        Raises:
            SettingsError: It is not a join code.
        """
        match = _CODE.fullmatch(text.strip())
        if not match:
            raise SettingsError(
                "DOORBELL_JOIN_CODE is not a join code.",
                todo="Copy the whole line that federation invite printed.",
            )
        return cls(base64.b32decode(match[1].upper()), match[2])

    @property
    def text(self) -> str:
        """The code as a person passes it on."""
        return f"doorbell-{base64.b32encode(self.secret).decode().lower()}-{self.main_key_id}"

    @property
    def invitation(self) -> str:
        """What names this code without giving it away: 32 hexadecimal digits."""
        return hashlib.sha256(b"doorbell-invitation/1" + self.secret).hexdigest()[:32]


def join_request(code: JoinCode, name: str, role: Role, identity: Identity) -> JoinRequest:
    """Return the request of one service with one code.

    Args:
        code: The operator's invitation.
        name: What the service wants to be called.
        role: "device" or "secure-aggregator".
        identity: Its key pair.
    """
    what = _transcript(code.main_key_id, code.invitation, name, role, identity.public)
    return JoinRequest(
        invitation=code.invitation,
        name=name,
        role=role,
        public_key=identity.public,
        proof=_proof(code, "member", what),
        signature=identity.sign(what),
    )


def transcript(request: JoinRequest, main_key_id: str) -> bytes:
    """Return what both sides prove to have agreed on."""
    return _transcript(
        main_key_id, request.invitation, request.name, request.role, request.public_key
    )


def proves(request: JoinRequest, code: JoinCode) -> bool:
    """Return whether the sender of a request knows the code's secret and owns the key it names."""
    what = transcript(request, code.main_key_id)
    is_invited = hmac.compare_digest(request.proof, _proof(code, "member", what))
    return is_invited and verify(request.public_key, request.signature, what)


def admission(code: JoinCode, request: JoinRequest, main: Identity) -> Admission:
    """Return the main server's answer to a request that proves itself.

    Args:
        code: The code that the request names.
        request: The request.
        main: The main server's key pair.
    """
    what = transcript(request, code.main_key_id)
    return Admission(
        public_key=main.public,
        proof=_proof(code, "main", what),
        # Marked, so that a member's own signature over the transcript is no answer.
        signature=main.sign(b"main" + what),
    )


@dataclass(frozen=True)
class Membership:
    """What a member keeps of having joined.

    Attributes:
        main_public_key: The main server's Ed25519 key, 32 bytes.
        name: What the federation calls the member.
    """

    main_public_key: bytes
    name: str

    @classmethod
    def accept(cls, code: JoinCode, request: JoinRequest, answer: Admission) -> Membership:
        """Return the membership that an admission gives.

        Raises:
            InvalidMessage: It is not from the main server that made the code.
        """
        what = transcript(request, code.main_key_id)
        # The code names the main server's key: a server in between has another one.
        is_named = fingerprint(answer.public_key) == code.main_key_id
        is_invited = hmac.compare_digest(answer.proof, _proof(code, "main", what))
        is_owner = verify(answer.public_key, answer.signature, b"main" + what)
        if not (is_named and is_invited and is_owner):
            raise InvalidMessage(
                "The answer is not from the main server that made this join code.",
                kept="Nothing was joined.",
                todo="Check DOORBELL_MAIN_URL, and ask for a new code.",
            )
        return cls(answer.public_key, request.name)

    @property
    def main_key_id(self) -> str:
        """Fingerprint of the main server's key."""
        return fingerprint(self.main_public_key)

    @classmethod
    def load(cls, folder: Path) -> Membership | None:
        """Return the membership kept in a service's folder, or None if it has not joined."""
        try:
            kept = json.loads((folder / "membership.json").read_text())
            return cls(_from_base64(kept["main_public_key"], 32), kept["name"])
        except FileNotFoundError:
            return None

    def save(self, folder: Path) -> None:
        """Keep it in a service's folder."""
        kept = {
            "main_public_key": base64.b64encode(self.main_public_key).decode(),
            "name": self.name,
        }
        write_durably(folder / "membership.json", json.dumps(kept).encode())


def new_key_statement(old_public_key: bytes) -> bytes:
    """Return what a new key signs, to show that its owner has it."""
    return b"doorbell-new-key/1" + old_public_key


def local_code_path(folder: Path, role: Role) -> Path:
    """Return where the main server leaves a join code for services on its own machine."""
    return folder / f"local-join-code.{role}"


def read_local_code(folder: Path, role: Role) -> str | None:
    """Return the code that a main server on this machine left, or None.

    Its file is for its owner alone: another user's services need a code of their own.
    """
    try:
        return local_code_path(folder, role).read_text()
    except OSError:
        return None


def checked_member_name(value: object, role: Role) -> str:
    """Return `value` if it may name a member of a role: each server's name is its own.

    Args:
        value: Anything a peer sent.
        role: "device" or "secure-aggregator".

    Raises:
        InvalidMessage: It may not.
    """
    name = checked_name(value, "member")
    is_aggregator = role == AGGREGATOR
    if is_aggregator != (name == AGGREGATOR) or name == MAIN_SERVER:
        raise InvalidMessage(f"No {role} can be called {name}.", todo="Choose another name.")
    return name


def _transcript(
    main_key_id: str, invitation: str, name: str, role: str, public_key: bytes
) -> bytes:
    # A JSON list: no two different lists of members give the same bytes.
    parts = ["doorbell-join/1", main_key_id, invitation, name, role, public_key.hex()]
    return json.dumps(parts).encode()


def _proof(code: JoinCode, side: str, what: bytes) -> bytes:
    # The side is in it: neither can send the other's proof back.
    return hmac.digest(code.secret, side.encode() + b"\0" + what, "sha256")


def _from_base64(value: object, size: int) -> bytes:
    text = value if isinstance(value, str) else ""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if len(data) != size:
        raise InvalidMessage("The kept key of the main server has the wrong form.")
    return data
