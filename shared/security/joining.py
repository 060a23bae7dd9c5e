"""Joining a federation: a code that proves both ends, and what a member keeps of it.

A join code carries a single secret and the fingerprint of the main server's key. Whoever joins
proves that he knows the secret and owns his key; the main server proves the same of itself. The
secret itself never travels: both sides send an HMAC over everything that is being agreed on (as in
a key-confirmed exchange; RFC 2104).
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
from typing import Literal

from shared.errors import InvalidMessage, SettingsError
from shared.names import MAIN_SERVER, checked_name
from shared.security.identity import Identity, fingerprint, verify
from shared.storage.blobs import write_durably

Role = Literal["device", "secure-aggregator"]
"""The main server's name; the aggregator's name is its role."""

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
            SettingsError: It is none.
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


@dataclass(frozen=True)
class JoinRequest:
    """What a service that wants to join sends.

    Attributes:
        invitation: Names the code.
        name: What it wants to be called.
        role: "device" or "secure-aggregator".
        public_key: 32 bytes, Ed25519.
        proof: HMAC-SHA256 under the code's secret: it was invited.
        signature: By its own key: it owns it.
    """

    invitation: str
    name: str
    role: Role
    public_key: bytes
    proof: bytes
    signature: bytes

    @classmethod
    def make(cls, code: JoinCode, name: str, role: Role, identity: Identity) -> JoinRequest:
        """Return the request of one service with one code."""
        what = _transcript(code.main_key_id, code.invitation, name, role, identity.public)
        return cls(
            code.invitation,
            name,
            role,
            identity.public,
            _proof(code, "member", what),
            identity.sign(what),
        )

    @classmethod
    def parse(cls, message: object) -> JoinRequest:
        """Return the request in a decoded JSON message.

        Raises:
            InvalidMessage: It is anything else.
        """
        if not isinstance(message, dict) or set(message) != set(cls.__dataclass_fields__):
            raise InvalidMessage("This is not a request to join.")
        role, invitation = message["role"], message["invitation"]
        if role not in ("device", "secure-aggregator"):
            raise InvalidMessage("This asks to join in a role that there is not.")
        if not isinstance(invitation, str) or not re.fullmatch(r"[0-9a-f]{32}", invitation):
            raise InvalidMessage("This names no invitation.")
        name = checked_member_name(message["name"], role)
        data = [
            _from_base64(message[key], size)
            for key, size in (("public_key", 32), ("proof", 32), ("signature", 64))
        ]
        return cls(invitation, name, role, *data)

    def to_json(self) -> dict[str, str]:
        """Return the form that travels."""
        data = {
            key: base64.b64encode(getattr(self, key)).decode()
            for key in ("public_key", "proof", "signature")
        }
        return {"invitation": self.invitation, "name": self.name, "role": self.role} | data

    def transcript(self, main_key_id: str) -> bytes:
        """Return what both proofs are about."""
        return _transcript(main_key_id, self.invitation, self.name, self.role, self.public_key)

    def proves(self, code: JoinCode) -> bool:
        """Return whether whoever sent this knows the code's secret and owns the key it names."""
        what = self.transcript(code.main_key_id)
        invited = hmac.compare_digest(self.proof, _proof(code, "member", what))
        return invited and verify(self.public_key, self.signature, what)


def admission(code: JoinCode, request: JoinRequest, main: Identity) -> dict[str, str]:
    """Return the main server's answer: its key, and proof that it knows the secret and owns the
    key.
    """
    what = request.transcript(code.main_key_id)
    data = {
        "public_key": main.public,
        "proof": _proof(code, "main", what),
        "signature": main.sign(b"main" + what),
    }
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


@dataclass(frozen=True)
class Membership:
    """What a member keeps: the main server's public key, 32 bytes, and what the federation calls
    him.
    """

    main_public_key: bytes
    name: str

    @classmethod
    def accept(cls, code: JoinCode, request: JoinRequest, answer: object) -> Membership:
        """Return the membership that an admission gives.

        Raises:
            InvalidMessage: Whoever answered is not the main server that made the code.
        """
        if not isinstance(answer, dict) or set(answer) != {"public_key", "proof", "signature"}:
            raise InvalidMessage("The answer to the request to join is not an admission.")
        key, proof, signature = (
            _from_base64(answer[name], size)
            for name, size in (("public_key", 32), ("proof", 32), ("signature", 64))
        )
        what = request.transcript(code.main_key_id)
        known = fingerprint(key) == code.main_key_id and hmac.compare_digest(
            proof, _proof(code, "main", what)
        )
        if not known or not verify(key, signature, b"main" + what):
            raise InvalidMessage(
                "Whoever answered is not the main server that made this join code.",
                kept="Nothing was joined.",
                todo="Check DOORBELL_MAIN_URL, and ask for a new code.",
            )
        return cls(key, request.name)

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
    """Return where the main server leaves the code by which its owner's own services of a role
    join.
    """
    return folder / f"local-join-code.{role}"


def read_local_code(folder: Path, role: Role) -> str | None:
    """Return the code that a main server on this machine left, or None if none is there, or not for
    us to read.
    """
    try:
        return local_code_path(folder, role).read_text()
    except OSError:
        return None


def checked_member_name(value: object, role: Role) -> str:
    """Return `value` if a member of that role may be called so: each server's name is its own.

    Raises:
        InvalidMessage: It may not.
    """
    name = checked_name(value, "member")
    if (role == "secure-aggregator") != (name == "secure-aggregator") or name == MAIN_SERVER:
        raise InvalidMessage(f"No {role} can be called {name}.", todo="Choose another name.")
    return name


def _transcript(
    main_key_id: str, invitation: str, name: str, role: str, public_key: bytes
) -> bytes:
    return json.dumps(
        ["doorbell-join/1", main_key_id, invitation, name, role, public_key.hex()]
    ).encode()


def _proof(code: JoinCode, side: str, what: bytes) -> bytes:
    return hmac.digest(code.secret, side.encode() + b"\0" + what, "sha256")


def _from_base64(value: object, size: int) -> bytes:
    try:
        data = (
            base64.b64decode(value, validate=True)
            if isinstance(value, str) and len(value) < 256
            else b""
        )
    except ValueError:
        data = b""
    if len(data) != size:
        raise InvalidMessage("A key, proof or signature in this message has the wrong form.")
    return data
