"""Who belongs to the federation: inviting, admitting, revoking, renaming. The operator decides, by
the command line.

On one machine nobody has to pass a code on: the main server leaves one in its own folder, in a file
that only its owner can read, and services of the same owner find it there.
"""

from __future__ import annotations

import math

from main_server.context import MainServer
from main_server.store import members as store
from main_server.store import publication
from main_server.store.members import Invitation, MemberRecord
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
# A code for this machine alone, in a file of its owner: it is never used up.
_ANY_NUMBER = 2**31


def invite(server: MainServer, role: Role, uses: int, hours: float) -> JoinCode:
    """Make a join code for `uses` services of one role, good for some hours."""
    code = JoinCode.make(server.identity.key_id)
    expires_at = server.clock() + hours * 3600
    _keep_code(server, code, role, uses, expires_at)
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
            # It names a key that this server no longer has: nobody could join by it.
            path.unlink(missing_ok=True)
        code = JoinCode.parse(secret_file(path, fresh.text.encode).decode())
        _keep_code(server, code, role, _ANY_NUMBER, math.inf)


def _keep_code(server: MainServer, code: JoinCode, role: Role, uses: int, until: float) -> None:
    invitation = Invitation(code.invitation, code.secret, role, uses, until)
    with server.store.write() as connection:
        store.invite(connection, invitation)


def admit(server: MainServer, request: JoinRequest) -> Admission:
    """Let a service join that proves that it was invited and owns its key; prove the same of this
    server.

    Raises:
        InvalidMessage: Its name is not one of its role.
        Forbidden: It proves nothing, its code is used up or has expired, or its name is taken.
    """
    checked_member_name(request.name, request.role)
    with server.store.read() as connection:
        invitation = store.find_invitation(connection, request.invitation)
    # An unknown code is checked like a known one, and refused with the same words: the answer
    # does not tell which codes exist.
    secret = invitation.secret if invitation else b""
    code = JoinCode(secret, server.identity.key_id)
    if invitation is None or not proves(request, code) or invitation.role != request.role:
        refused = "This join code is not one of this main server."
        raise Forbidden(refused, todo="Ask for a new one.", slug="join-refused")
    now = server.clock()
    key_id = fingerprint(request.public_key)
    member = MemberRecord(key_id, request.name, request.role, request.public_key, now, None)
    # Uses left and expiry are looked at again in here: of two with the last use, one joins.
    with server.store.write() as connection:
        reason = store.admit(connection, request.invitation, member, now)
    if reason is not None:
        raise Forbidden(
            f"{request.name} cannot join: {reason}.",
            todo="On the main server's machine, python -m federation devices shows who has joined; "
            f"revoke {request.name} there, invite anew, or choose another name.",
            slug="join-refused",
        )
    return admission(code, request, server.identity)


def member_of(server: MainServer, key_id: str) -> Member | None:
    """Return the member with a key, revoked ones too; the gate asks this."""
    with server.store.read() as connection:
        joined = store.find_member(connection, key_id)
    if joined is None:
        return None
    return Member(joined.name, joined.role, joined.public_key, joined.revoked)


def roster(server: MainServer) -> Members:
    """Return everybody, as the aggregator gets it: name, role, public key, and why revoked."""
    with server.store.read() as connection:
        members = store.all_members(connection)
    return Members(
        tuple(
            RosterMember(joined.name, joined.role, joined.public_key, joined.revoked)
            for joined in members
        )
    )


def change_key(server: MainServer, caller: Caller, message: NewKey) -> None:
    """Replace a member's key: asked for under the old key, and signed with the new one too.

    Raises:
        InvalidMessage: Its sender does not own the new key.
        OutOfOrder: The new key is known already.
    """
    public = message.public_key
    # The request is signed with the old key, this statement with the new one: both are owned.
    if not verify(public, message.signature, new_key_statement(caller.member.public_key)):
        raise InvalidMessage("The new key's signature does not verify.", kept="The old key stays.")
    with server.store.write() as connection:
        changed = store.change_key(connection, caller.verified.key_id, fingerprint(public), public)
    if not changed:
        raise OutOfOrder(
            "That key is known already.", kept="The old key stays.", todo="Make another."
        )


def revoke(server: MainServer, name: str, reason: str) -> None:
    """Revoke a member: its messages are refused from now on, and its update is in no sum any more.

    Raises:
        NotFound: Nobody is called that.
    """
    with server.store.write() as connection:
        revoked = publication.revoke(connection, name, reason, server.clock())
    if not revoked:
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
    checked = checked_member_name(new, "device")
    with server.store.write() as connection:
        renamed = publication.rename(connection, old, checked, server.clock())
    if not renamed:
        raise NotFound(
            f"Nobody is called {old}, or there is a {new} already.", todo="Choose another name."
        )
