"""Who belongs to the federation: inviting, admitting, revoking, renaming. The operator decides, by
the command line.

On one machine nobody has to pass a code on: the main server leaves one in its own folder, in a file
that only its owner can read, and services of the same owner find it there.
"""

from __future__ import annotations

import math

from main_server.context import MainServer
from main_server.store.members import Invitation, Joined
from shared.errors import Forbidden, InvalidMessage, NotFound, OutOfOrder
from shared.protocol.joining import (
    Admission,
    JoinRequest,
    Members,
    NewKey,
    Role,
    RosterMember,
)
from shared.security.authenticator import Caller, Member
from shared.security.identity import fingerprint, secret_file, verify
from shared.security.joining import (
    JoinCode,
    admission,
    checked_member_name,
    local_code_path,
    new_key_statement,
    proves,
    read_local_code,
)

DEVICE: Role = "device"
AGGREGATOR: Role = "secure-aggregator"
_ANY_NUMBER = 2**31


def invite(server: MainServer, role: Role, uses: int, hours: float) -> JoinCode:
    """Make a join code for `uses` services of one role, good for some hours."""
    code = JoinCode.make(server.identity.key_id)
    expires_at = server.clock() + hours * 3600
    server.store.invite(Invitation(code.invitation, code.secret, role, uses, expires_at))
    return code


def leave_local_codes(server: MainServer) -> None:
    """Leave a code per role in files that only the owner of the main server's folder can read; of
    its own key alone.
    """
    for role in (DEVICE, AGGREGATOR):
        path = local_code_path(server.settings.folder, role)
        fresh = JoinCode.make(server.identity.key_id)
        left = read_local_code(server.settings.folder, role)
        if left is not None and not left.endswith(server.identity.key_id):
            path.unlink(missing_ok=True)  # it names a key that this server has no more
        code = JoinCode.parse(secret_file(path, fresh.text.encode).decode())
        server.store.invite(Invitation(code.invitation, code.secret, role, _ANY_NUMBER, math.inf))


def admit(server: MainServer, request: JoinRequest) -> Admission:
    """Let a service join that proves that it was invited and owns its key; prove the same of this
    server.

    Raises:
        InvalidMessage: Its name is not one of its role.
        Forbidden: It proves nothing, its code is used up or has expired, or its name is taken.
    """
    checked_member_name(request.name, request.role)
    invitation = server.store.invitation(request.invitation)
    code = JoinCode(invitation.secret if invitation else b"", server.identity.key_id)
    if invitation is None or not proves(request, code) or invitation.role != request.role:
        refused = "This join code is not one of this main server."
        raise Forbidden(refused, todo="Ask for a new one.", slug="join-refused")
    now = server.clock()
    member = Joined(
        fingerprint(request.public_key), request.name, request.role, request.public_key, now, None
    )
    if (reason := server.store.admit(request.invitation, member, now)) is not None:
        raise Forbidden(
            f"{request.name} cannot join: {reason}.",
            todo=f"On the main server's machine, python -m federation devices shows who has joined; "
            f"revoke {request.name} there, invite anew, or choose another name.",
            slug="join-refused",
        )
    return admission(code, request, server.identity)


def member_of(server: MainServer, key_id: str) -> Member | None:
    """Return the member with a key, revoked ones too; the gate asks this."""
    joined = server.store.member(key_id)
    return (
        None
        if joined is None
        else Member(joined.name, joined.role, joined.public_key, joined.revoked)
    )


def roster(server: MainServer) -> Members:
    """Return everybody, as the aggregator gets it: name, role, public key, and why revoked."""
    return Members(
        tuple(
            RosterMember(joined.name, joined.role, joined.public_key, joined.revoked)
            for joined in server.store.members()
        )
    )


def change_key(server: MainServer, caller: Caller, message: NewKey) -> None:
    """Replace a member's key: asked for under the old key, and signed with the new one too.

    Raises:
        InvalidMessage: Its sender does not own the new key.
        OutOfOrder: The new key is known already.
    """
    public, statement = message.public_key, new_key_statement(caller.member.public_key)
    if not verify(public, message.signature, statement):
        raise InvalidMessage("Whoever sent this key does not own it.", kept="The old key stays.")
    if not server.store.change_key(caller.verified.key_id, fingerprint(public), public):
        raise OutOfOrder(
            "That key is known already.", kept="The old key stays.", todo="Make another."
        )


def revoke(server: MainServer, name: str, reason: str) -> None:
    """Revoke a member: its messages are refused from now on, and its update is in no sum any more.

    Raises:
        NotFound: Nobody is called that.
    """
    if not server.store.revoke(name, reason, server.clock()):
        raise NotFound(
            f"Nobody called {name} is in this federation.",
            todo="python -m federation devices lists them.",
        )


def rename(server: MainServer, old: str, new: str) -> None:
    """Rename a device; it hears of it when it next announces itself.

    Raises:
        InvalidMessage: That is no name.
        NotFound: Nobody is called that, or the new name is taken.
    """
    if not server.store.rename(old, checked_member_name(new, "device"), server.clock()):
        raise NotFound(
            f"Nobody is called {old}, or there is a {new} already.", todo="Choose another name."
        )
