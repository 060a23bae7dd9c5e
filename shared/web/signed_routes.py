"""Routes of signed messages: verified before a view sees them, and their answers signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flask import Flask, Response, after_this_request, g, request

from shared.errors import InvalidMessage
from shared.security.authenticator import AnyRole, Authenticator, Caller
from shared.web.app import add_message
from shared.web.openapi import Operation


def add_signed_message(
    app: Flask,
    authenticator: Authenticator,
    rule: str,
    view: Callable[..., Response],
    roles: tuple[AnyRole, ...],
    operation: Operation,
    methods: Sequence[str] = ("POST",),
) -> None:
    """Add an address that only members with one of `roles` may call.

    Args:
        app: The service's app.
        authenticator: The service's authenticator.
        rule: As Flask writes it.
        view: Answers; gets the caller, and what the rule names.
        roles: Whose messages are taken.
        operation: What it does.
        methods: HTTP methods.
    """

    def verified(**values: str) -> Response:
        # A prefix that a proxy names would route another path than the signed one.
        if request.script_root:
            raise InvalidMessage("Messages are taken at this service's own addresses alone.")
        # As it came, undecoded: the signature is over these bytes.
        target = request.environ.get("RAW_URI") or request.environ["REQUEST_URI"]
        caller = authenticator.admit(
            request.method, target, request.headers, request.get_data, roles
        )
        g.member = caller.name
        after_this_request(lambda response: _signed(authenticator, caller, response))
        return view(caller, **values)

    verified.__name__ = view.__name__
    add_message(app, rule, verified, methods, replace(operation, security="signature"))


def _signed(authenticator: Authenticator, caller: Caller, response: Response) -> Response:
    covered = {name: value for name, value in response.headers if name == "Content-Type"}
    response.headers.update(
        authenticator.sign_answer(response.status_code, covered, response.data, caller)
    )
    return response
