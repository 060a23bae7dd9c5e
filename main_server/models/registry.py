"""The versions of each detector's global model: making version 0, publishing, handing out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from prometheus_client import Counter

from learning.architectures import architecture
from learning.model import Model, parse_model
from learning.server_state import ServerState, with_arrays
from main_server.context import MainServer
from main_server.store.records import PASSED, Device, Version
from shared.errors import DoorbellError, NotFound, OutOfOrder
from shared.security.manifest import HEADER, Manifest
from shared.telemetry.logs import carried
from shared.telemetry.metrics import REGISTRY
from shared.transport.http_client import Peer
from shared.web.steps import Done

_PARALLEL_DELIVERIES = 8
_deliveries = Counter(
    "doorbell_deliveries",
    "Models pushed to devices, missed, or fetched.",
    ["detector", "how"],
    registry=REGISTRY,
)


def keep_model(server: MainServer, model: Model, state: ServerState | None = None) -> Version:
    """Keep a model durably, with the strategy's arrays; return its version, not published yet."""
    data = model.to_bytes()
    now = server.clock()
    manifest = Manifest.of(server.settings.federation, model, data, now).signed(server.identity)
    digest = server.blobs.put(data)
    arrays = None if state is None else state.arrays_to_bytes()
    return Version(
        version=digest,
        detector=model.detector,
        round=model.round,
        architecture=model.architecture,
        manifest=manifest,
        parent=model.parent,
        made_at=now,
        state=None if arrays is None else server.blobs.put(arrays),
    )


def initial_version(server: MainServer, detector: str, number: int, parent: str | None) -> Version:
    """Publish freshly drawn params, by numpy alone, as the version of round `number` (0 for a new
    detector).
    """
    spec = architecture(server.settings.architecture)
    seed = np.random.SeedSequence([server.settings.seed, *detector.encode()])
    model = Model(detector, number, parent, spec.name, spec.initial(np.random.default_rng(seed)))
    version = keep_model(server, model)
    server.store.add_version(version)
    return version


def republish(server: MainServer, source: Version, number: int, said: str = "") -> Version:
    """Return a new version with the params of an earlier one, under a higher round number; it is
    not in force yet.

    Raises:
        NotFound: Its parameters are not kept any more.
    """
    if source.forgotten:
        raise NotFound(
            f"The parameters of {source.version[:12]} are not kept any more.",
            todo="python -m federation models lists the versions that are; DOORBELL_KEEP_VERSIONS says how many.",
        )
    model = load_model(server, source.version)
    again = Model(model.detector, number, source.version, model.architecture, model.params)
    return replace(keep_model(server, again), state=source.state, gate=PASSED, said=said)


def load_model(server: MainServer, version: str) -> Model:
    """Return the model of a version that was published."""
    return parse_model(server.blobs.get(version))


def load_state(server: MainServer, version: str) -> ServerState:
    """Return the server state of a version: its flat params, and the strategy's arrays."""
    model = load_model(server, version)
    params = architecture(model.architecture).flatten(model.params)
    published = server.store.version(version)
    arrays = None if published is None else published.state
    return with_arrays(params, None if arrays is None else server.blobs.get(arrays))


def published_model(server: MainServer, version: str) -> tuple[bytes, str]:
    """Return a published model's container and its signed manifest.

    Raises:
        NotFound: No such version was published.
    """
    published = server.store.version(version)
    if published is None or published.forgotten:
        raise NotFound(
            "There is no such version, or not any more.",
            todo="Ask for the version that the open round starts from.",
        )
    model = server.blobs.get(version)
    server.store.note_given(published.detector, len(model))
    _deliveries.labels(published.detector, "fetched").inc()
    return model, published.manifest


def deliver(server: MainServer, detector: str) -> Done:
    """Send the newest version to every device that takes part; those that do not answer fetch it
    later.

    Raises:
        OutOfOrder: No round has been finished yet.
    """
    version = server.store.newest_version(detector)
    newest = server.store.newest_round(detector)
    if version is None or newest is None or version.round == 0:
        raise OutOfOrder(
            "No aggregated model exists yet.",
            todo="Finish a round first: train, send, aggregate; then deliver.",
        )
    server.store.release(version.version, server.clock())
    model = server.blobs.get(version.version)
    taking_part = {p.device for p in server.store.participations(detector)}
    devices = [device for device in server.store.devices() if device.name in taking_part]
    with ThreadPoolExecutor(_PARALLEL_DELIVERIES) as pool:
        push = carried(lambda device: _deliver_to(server, device, version, model))
        outcomes = list(pool.map(push, devices))
    there = [
        device.name for device, reason in zip(devices, outcomes, strict=True) if reason is None
    ]
    later = {
        device.name: reason
        for device, reason in zip(devices, outcomes, strict=True)
        if reason is not None
    }
    server.store.note_given(detector, len(model) * len(there))
    said = f"The model of round {version.round} is delivered to {', '.join(there) or 'no device'}."
    said += "".join(f" {name} fetches it later: {reason}" for name, reason in later.items())
    figures = {
        "version": version.version,
        "round": version.round,
        "delivered": there,
        "later": later,
    }
    return Done(said, figures | {"bytes_per_device": len(model)})


def _deliver_to(server: MainServer, device: Device, version: Version, model: bytes) -> str | None:
    """Push a model to one device; return why it has to fetch it later, or None."""
    try:
        to = Peer(device.name, device.address)
        server.http.post(f"{device.address}/aggmodel", model, to, {HEADER: version.manifest})
    except DoorbellError as error:
        _deliveries.labels(version.detector, "missed").inc()
        return str(error)
    _deliveries.labels(version.detector, "pushed").inc()
    server.store.note_delivery(device.name, version.detector, version.version)
    return None
