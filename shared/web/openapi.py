"""What a service says of itself at /openapi.json (OpenAPI 3.1), put together from its addresses.

The addresses tell paths, methods and names in them; an `Operation`, given where an address is
added, tells the rest. What follows from its kind, such as that an unsigned message is refused, is
said here once. https://spec.openapis.org
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, get_args

import msgspec
from werkzeug.routing import Rule

from shared.errors import DoorbellError, SignatureFault
from shared.messages import Message
from shared.names import NAME, VERSION
from shared.protocol.answers import Said
from shared.security.manifest import HEADER
from shared.security.signing import PROTOCOL
from shared.transport.http_client import CONTAINER_TYPE

_REFERENCE = "#/components/schemas/{name}"
OPERATIONS = "doorbell.operations"  # key in app.extensions: endpoint to method to Operation
OTHER_TYPES = ("revoked", "wrong-role", "join-refused", "manifest-invalid", "step")
"""Ends of problem types that an error is given where it is raised, instead of by its class."""

Schema = Mapping[str, object]
Kinds = tuple[type[Message], ...]
Content = Mapping[str, Schema | Kinds]
"""Media type to its schema, or to the declared messages of which it is one."""

_PROBLEMS = {
    400: "The request is not what the protocol says.",
    401: "The signature is missing or does not hold; or the operator is not logged in.",
    403: "Who sent it is known, and may not; or it is not the operator's own doing.",
    404: "No such detector, version or page.",
    409: "Out of order.",
    413: "Too large.",
    416: "No such part.",
    422: "The pictures cannot be learned from.",
    429: "Too many attempts, or too many open pages.",
    500: "It failed.",
    503: "Another service did not answer.",
    507: "The disk or the database does not take it.",
}
_SECURITY: Mapping[str, Schema] = {
    "operator": {
        "type": "http",
        "scheme": "bearer",
        "description": "The operator token, or the cookie of /login.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "By a member (RFC 9421).",
    },
}


def text(pattern: str) -> Schema:
    """Return the schema of a string that matches as a whole."""
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def record(**members: Schema) -> Schema:
    """Return the schema of an object that has at least these members."""
    return {"type": "object", "required": list(members), "properties": members}


def table(values: Schema) -> Schema:
    """Return the schema of an object with names (of detectors or devices) for keys."""
    return {"type": "object", "propertyNames": NAME_TEXT, "additionalProperties": values}


def as_json(schema: Schema) -> Content:
    """Return the content of an answer in JSON that no party reads."""
    return {"application/json": schema}


def json_of(*kinds: type[Message]) -> Content:
    """Return the content of a message between parties, of one of these kinds."""
    return {"application/json": kinds}


STRING: Schema = {"type": "string"}
NAME_TEXT = text(NAME.pattern)
VERSION_TEXT = text(VERSION.pattern)
FORM = "application/x-www-form-urlencoded"
CONTAINER: Content = {CONTAINER_TYPE: {}}
HTML: Content = {"text/html": STRING}
PNG: Content = {"image/png": {}}
JPEG: Content = {"image/jpeg": {}}
SAID = json_of(Said)
MANIFEST: Schema = {"name": HEADER, "in": "header", "required": True, "schema": STRING}
_PICKED = text(f"({NAME.pattern})?")
PICK: Schema = {
    "name": "detector",
    "in": "query",
    "description": "One detector; all without it.",
    "schema": _PICKED,
}
_DETECTORS = table(record(status={"type": "integer"}, said=STRING))
SENTENCE: Content = {"text/plain": STRING, **as_json(record(said=STRING)), **HTML}
STEP: Content = {"text/plain": STRING, **as_json(record(said=STRING, detectors=_DETECTORS)), **HTML}


def form(*parameters: Schema) -> Content:
    """Return the form in which parameters of the query may be posted as well."""
    properties = {each["name"]: each["schema"] for each in parameters}
    return {FORM: {"type": "object", "properties": properties}}


@dataclass(frozen=True)
class Operation:
    """What one method does at one address.

    Attributes:
        summary: One sentence.
        body: What it takes, or nothing.
        answer: What comes back with a status of `done`.
        fails: Statuses of the problems it can give, beside those that every operation of its kind
            can.
        security: Whose requests are taken: the operator's, a member's who signs, or anybody's.
        parameters: Of query and header; those of the path follow from the address.
        headers: Header fields of the answer.
        done: Statuses of success.
    """

    summary: str
    body: Content = field(default_factory=dict)
    answer: Content = field(default_factory=lambda: SAID)
    fails: tuple[int, ...] = ()
    security: Literal["operator", "signature", "none"] = "none"
    parameters: tuple[Schema, ...] = ()
    headers: tuple[str, ...] = ()
    done: tuple[int, ...] = (200,)

    def problems(self, has_token: bool) -> list[int]:
        """Return the statuses of all problems it can give.

        Args:
            has_token: Whether operators have a token.
        """
        by_security = {
            "operator": {401, 403, 429} if has_token else {403},
            "signature": {400, 401, 403, 413},
            "none": set(),
        }
        found = {500, *self.fails} | by_security[self.security]
        if self.body:
            found |= {400, 413}
        return sorted(found)


PAGE = Operation("Show the service's page.", answer=HTML, security="operator")
HEALTH = Operation(
    "Tell how the service is.",
    answer=as_json(record(service=STRING, status=STRING, version=STRING)),
)
METRICS = Operation("Tell Prometheus figures.", answer={"text/plain": STRING}, security="operator")
ITSELF = Operation("Show this description.", answer=as_json(record(openapi=STRING)))
STATIC = Operation(
    "Show what pages are made with.", {}, {"*/*": {}}, (404, 416), done=(200, 206, 304)
)


def declare(extensions: dict[str, Any], endpoint: str, **methods: Operation) -> None:
    """Note in an app's extensions what each method of an endpoint does."""
    extensions.setdefault(OPERATIONS, {})[endpoint] = methods


def describe(
    service: str, rules: Iterable[Rule], extensions: Mapping[str, Any], has_token: bool
) -> dict[str, object]:
    """Return a service's description, a JSON document.

    Args:
        service: What it is, for people.
        rules: Its addresses.
        extensions: Its app's, with what was declared.
        has_token: Whether operators show a token.
    """
    schemas, refs = _declared(extensions[OPERATIONS])
    paths: dict[str, dict[str, object]] = {}
    for rule in rules:
        # Flask writes <name> or <int:name> for what OpenAPI writes as {name}.
        path = paths.setdefault(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        for method, operation in extensions[OPERATIONS].get(rule.endpoint, {}).items():
            named = {
                "operationId": f"{method.lower()}_{rule.endpoint}",
                "summary": operation.summary,
            }
            described = _operation(operation, sorted(rule.arguments), has_token, refs)
            path[method.lower()] = named | described
    components = {
        "securitySchemes": {
            kind: scheme for kind, scheme in _SECURITY.items() if has_token or kind != "operator"
        },
        "schemas": {"Problem": _problem(), **schemas},
        "responses": _refusals(refs),
    }
    info = {"title": f"Doorbell Federation: {service}", "version": PROTOCOL.rpartition("/")[2]}
    return {"openapi": "3.1.1", "info": info, "paths": paths, "components": components}


def _refusals(refs: Mapping[type[Message], Schema]) -> dict[str, object]:
    """Return the answers to what cannot be done, by status; operations refer to them."""
    problem = {"application/problem+json": {"$ref": "#/components/schemas/Problem"}}
    content = _media({"text/plain": STRING, **problem, **HTML}, refs)
    return {
        str(status): {"description": meaning, "content": content}
        for status, meaning in _PROBLEMS.items()
    }


def _declared(
    operations: Mapping[str, Mapping[str, Operation]],
) -> tuple[dict[str, Any], dict[type[Message], Schema]]:
    """Return the schemas of all messages that operations take and give, and a reference to each."""
    found: set[type[Message]] = set()
    for methods in operations.values():
        for operation in methods.values():
            for content in (operation.body, operation.answer):
                for known in content.values():
                    found.update(known if isinstance(known, tuple) else ())
    kinds = sorted(found, key=lambda kind: kind.__name__)
    refs, schemas = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    return schemas, dict(zip(kinds, refs, strict=True))


def _operation(
    operation: Operation,
    names: list[str],
    has_token: bool,
    refs: Mapping[type[Message], Schema],
) -> dict[str, object]:
    known = {"detector": NAME_TEXT, "version": VERSION_TEXT}
    parts = [
        {"name": name, "in": "path", "required": True, "schema": known.get(name, STRING)}
        for name in names
    ]
    done = {
        "content": _media(operation.answer, refs),
        "headers": {name: {"schema": STRING} for name in operation.headers},
    }
    answers: dict[str, object] = {
        str(n): {"description": HTTPStatus(n).phrase} | done for n in operation.done
    }
    for status in operation.problems(has_token):
        answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    # Without a token the operator shows nothing: the request must come from this machine.
    is_secured = operation.security == "signature"
    if operation.security == "operator":
        is_secured = has_token
    described: dict[str, object] = {
        "parameters": [*parts, *operation.parameters],
        "responses": answers,
    }
    if operation.body:
        described["requestBody"] = {
            "required": FORM not in operation.body,
            "content": _media(operation.body, refs),
        }
    return described | {"security": [{operation.security: []}] if is_secured else []}


def _media(content: Content, refs: Mapping[type[Message], Schema]) -> dict[str, object]:
    described: dict[str, object] = {}
    for media_type, known in content.items():
        if isinstance(known, tuple):
            among = [refs[kind] for kind in known]
            described[media_type] = {"schema": among[0] if len(among) == 1 else {"anyOf": among}}
        else:
            described[media_type] = {"schema": known} if known else {}
    return described


def _problem() -> Schema:
    """Return the schema of a problem (RFC 9457); a step's may tell of each detector too."""
    slugs = {*OTHER_TYPES, *get_args(SignatureFault)}
    classes: list[type[DoorbellError]] = [DoorbellError]
    while classes:
        known = classes.pop()
        slugs.add(known.slug)
        classes += known.__subclasses__()
    types = [f"urn:doorbell:problem:{slug}" for slug in sorted(slugs)]
    kind: Schema = {"enum": ["about:blank", *types]}
    status: Schema = {"type": "integer", "minimum": 400, "maximum": 599}
    return record(type=kind, title=STRING, status=status, detail=STRING)
