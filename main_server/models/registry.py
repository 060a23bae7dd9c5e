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
from main_server.store.devices import all_devices, note_delivery, participations
from main_server.store.records import PASSED, Device, Version
from main_server.store.rounds import count_bytes_down, newest_round
from main_server.store.versions import add_version, find_version, newest_version, release
from shared.errors import DoorbellError, NotFound, OutOfOrder
from shared.security.manifest import HEADER, manifest_of, signed_manifest
from shared.telemetry.logs import carried
from shared.telemetry.metrics import REGISTRY
from shared.transport.http_client import Peer
from shared.web.steps import Done

# So many devices are sent a model at once: one that does not answer holds up only its place.
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
    unsigned = manifest_of(server.settings.federation, model, data, now)
    manifest = signed_manifest(unsigned, server.identity)
    # On disk before a row names it: a version never lacks its params.
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
    """Publish freshly drawn params, by numpy alone.

    Args:
        server: The main server; its seed and the detector's name decide the params.
        detector: Whose model.
        number: The round that it counts as; 0 for a new detector.
        parent: The version that it takes the place of, or None.
    """
    spec = architecture(server.settings.architecture)
    seed = np.random.SeedSequence([server.settings.seed, *detector.encode()])
    params = spec.initial(np.random.default_rng(seed))
    model = Model(detector, number, parent, spec.name, params)
    version = keep_model(server, model)
    with server.store.write() as connection:
        add_version(connection, version)
    return version


def republish(server: MainServer, source: Version, number: int, said: str = "") -> Version:
    """Return a new version with the params and the server state of an earlier one.

    It is kept, but not active yet.

    Args:
        server: The main server.
        source: The earlier version.
        number: The round that it counts as, higher than every one before.
        said: Why.

    Raises:
        NotFound: Its parameters are not kept any more.
    """
    if source.forgotten:
        raise NotFound(
            f"The parameters of {source.version[:12]} are not kept any more.",
            todo="python -m federation models lists the versions that are; "
            "DOORBELL_KEEP_VERSIONS says how many.",
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
    with server.store.read() as connection:
        published = find_version(connection, version)
    arrays = None if published is None else published.state
    return with_arrays(params, None if arrays is None else server.blobs.get(arrays))


def published_model(server: MainServer, version: str) -> tuple[bytes, str]:
    """Return a published model's container and its signed manifest.

    Raises:
        NotFound: No such version was published.
    """
    with server.store.read() as connection:
        published = find_version(connection, version)
    if published is None or published.forgotten:
        raise NotFound(
            "There is no such version, or not any more.",
            todo="Ask for the version that the open round starts from.",
        )
    # The container is signed over as it is: it is handed out byte for byte.
    model = server.blobs.get(version)
    _count_given(server, published.detector, len(model))
    _deliveries.labels(published.detector, "fetched").inc()
    return model, published.manifest


def deliver(server: MainServer, detector: str) -> Done:
    """Send the newest version to every device that takes part.

    Those that do not answer fetch it later.

    Raises:
        OutOfOrder: No round has been finished yet.
    """
    version, devices = _release(server, detector)
    model = server.blobs.get(version.version)
    with ThreadPoolExecutor(_PARALLEL_DELIVERIES) as pool:
        push = carried(lambda device: _deliver_to(server, device, version, model))
        outcomes = list(pool.map(push, devices))
    there = []
    later = {}
    for device, reason in zip(devices, outcomes, strict=True):
        if reason is None:
            there.append(device.name)
        else:
            later[device.name] = reason
    _count_given(server, detector, len(model) * len(there))
    names = ", ".join(there) or "no device"
    said = f"The model of round {version.round} is delivered to {names}."
    for name, reason in later.items():
        said += f" {name} fetches it later: {reason}"
    figures = {
        "version": version.version,
        "round": version.round,
        "delivered": there,
        "later": later,
        "bytes_per_device": len(model),
    }
    return Done(said, figures)


def _release(server: MainServer, detector: str) -> tuple[Version, list[Device]]:
    """Give the newest version to the devices from now on; return it, and who is to get it."""
    with server.store.write() as connection:
        version = newest_version(connection, detector)
        newest = newest_round(connection, detector)
        if version is None or newest is None or version.round == 0:
            raise OutOfOrder(
                "No aggregated model exists yet.",
                todo="Finish a round first: train, send, aggregate; then deliver.",
            )
        # Released first: a device that polls while others are sent the model installs it, too.
        release(connection, version.version, server.clock())
        devices = all_devices(connection)
        parts = participations(connection, detector)
    taking_part = {part.device for part in parts}
    return version, [device for device in devices if device.name in taking_part]


def _count_given(server: MainServer, detector: str, size: int) -> None:
    """Count bytes of models that devices were given: one statement, so no write lock is taken."""
    with server.store.write(alone=False) as connection:
        count_bytes_down(connection, detector, size)


def _deliver_to(server: MainServer, device: Device, version: Version, model: bytes) -> str | None:
    """Push a model to one device; return why it has to fetch it later, or None."""
    try:
        to = Peer(device.name, device.address)
        server.http.post(f"{device.address}/aggmodel", model, to, {HEADER: version.manifest})
    except DoorbellError as error:
        # Nothing is lost: the device fetches the released version with its next poll.
        _deliveries.labels(version.detector, "missed").inc()
        return str(error)
    _deliveries.labels(version.detector, "pushed").inc()
    with server.store.write() as connection:
        note_delivery(connection, device.name, version.detector, version.version)
    return None
