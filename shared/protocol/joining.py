"""Joining a federation, changing a key, and who belongs to it: the messages between a member and
the main server.

`shared/security/joining.py` makes the proofs in them and checks them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from shared.messages import Key, Message, Name, Signature, matching

Role = Literal["device", "secure-aggregator"]
Invitation = Annotated[str, matching("[0-9a-f]{32}")]


class JoinRequest(Message, frozen=True):
    """A service asks to join.

    Attributes:
        invitation: Names the join code without giving it away.
        name: What the service wants to be called.
        role: "device" or "secure-aggregator".
        public_key: Its Ed25519 key, 32 bytes.
        proof: HMAC-SHA256 under the code's secret: it was invited.
        signature: By its own key: it owns it.
    """

    noun: ClassVar[str] = "request to join"

    invitation: Invitation
    name: Name
    role: Role
    public_key: Key
    # An HMAC-SHA256 has the length of a key.
    proof: Key
    signature: Signature


class Admission(Message, frozen=True):
    """The main server's answer: proof that it made the join code and owns its key.

    Attributes:
        public_key: The main server's Ed25519 key, 32 bytes.
        proof: HMAC-SHA256 under the code's secret.
        signature: By the main server's key.
    """

    noun: ClassVar[str] = "admission"

    public_key: Key
    proof: Key
    signature: Signature


# The following may gain members in newer versions: a reader takes what it knows.


class NewKey(Message, frozen=True, forbid_unknown_fields=False):
    """A member replaces its key; the message itself is signed with the old one.

    Attributes:
        public_key: The new Ed25519 key, 32 bytes.
        signature: By the new key, over the old one: its owner has it.
    """

    noun: ClassVar[str] = "new key"

    public_key: Key
    signature: Signature


class RosterMember(Message, frozen=True, forbid_unknown_fields=False):
    """A member as the aggregator knows it; `revoked` is why its messages are refused, or None."""

    noun: ClassVar[str] = "member"

    name: Name
    role: Role
    public_key: Key
    revoked: str | None


class Members(Message, frozen=True, forbid_unknown_fields=False):
    """Everybody who ever joined under a name that is still theirs, revoked members too."""

    noun: ClassVar[str] = "roster"

    members: tuple[RosterMember, ...]
