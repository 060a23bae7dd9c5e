"""The round plan: it travels unchanged, and nothing that could not be a round gets through."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from shared.errors import DoorbellError, InvalidMessage
from shared.round.plan import LocalWork, RoundPlan, parse_round_plan, parse_stored_plan

RoundSettingsFactory = Callable[..., RoundPlan]
VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "round.json").read_text())
RANGES = {
    "round": (1, 2**31),
    "size": (1, 2**28),
    "epochs": (1, 100),
    "batch_size": (1, 1024),
    "learning_rate": (1e-9, 1.0),
    "clipping_norm": (1e-9, 1e9),
    "value_range": (1e-9, 1e9),
    "weight_cap": (1, 2**20),
    "cohort_cap": (2, 2**20),
    "min_cohort": (2, 2**20),
    "server_learning_rate": (1e-9, 10.0),
}
FRACTIONS = {"learning_rate", "clipping_norm", "value_range", "server_learning_rate"}
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def travelled(settings: RoundPlan) -> Any:
    return json.loads(json.dumps(settings.to_json()))


@given(
    federation=NAMES,
    detector=NAMES,
    number=st.integers(1, 2**31),
    rate=st.floats(1e-9, 1.0),
    norm=st.none() | st.floats(1e-9, 1e9),
    key=st.binary(max_size=1216),
)
def test_round_settings_come_back_as_they_were_sent(
    round_settings: RoundSettingsFactory,
    federation: str,
    detector: str,
    number: int,
    rate: float,
    norm: float | None,
    key: bytes,
) -> None:
    sent = round_settings(
        federation=federation,
        detector=detector,
        round=number,
        learning_rate=rate,
        clipping_norm=norm,
        topology="direct",
        sealing_key=base64.b64encode(key).decode(),
    )
    assert parse_round_plan(travelled(sent)) == sent
    assert sent.sealing_key_bytes == key


def test_form_that_travels_is_the_pinned_one() -> None:
    assert parse_round_plan(VECTOR["round_settings"]).to_json() == VECTOR["round_settings"]


def test_context_is_the_pinned_bytes() -> None:
    assert (
        parse_round_plan(VECTOR["round_settings"]).context(VECTOR["device"])
        == VECTOR["context"].encode()
    )


@pytest.mark.parametrize(
    "change",
    [{"federation": "other"}, {"detector": "parcel"}, {"round": 4}, {"base_version": "f" * 64}],
    ids=lambda change: next(iter(change)),
)
def test_context_names_federation_detector_round_and_version(
    round_settings: RoundSettingsFactory, change: dict[str, Any]
) -> None:
    assert round_settings().context("device-1") != round_settings(**change).context("device-1")


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(NAMES, NAMES, NAMES, st.integers(1, 999)), min_size=2, max_size=2, unique=True
    )
)
def test_no_two_uploads_share_a_context(
    round_settings: RoundSettingsFactory, uploads: list[tuple[str, str, str, int]]
) -> None:
    one, two = (
        round_settings(federation=federation, detector=detector, round=number).context(device)
        for federation, detector, device, number in uploads
    )
    assert one != two


def test_plan_that_an_earlier_version_stored_is_read_with_what_it_did_then(
    round_settings: RoundSettingsFactory,
) -> None:
    now = round_settings(server_learning_rate=1.0, strategy="fedavg")
    earlier = travelled(now)
    del earlier["strategy"], earlier["server_learning_rate"]
    assert parse_stored_plan(json.dumps(earlier)) == now
    with pytest.raises(InvalidMessage):
        parse_round_plan(earlier)  # a peer of another version is told so


@pytest.mark.parametrize("strategy", ["", "FedAvg", "a b", "x()y", "a(b=1)c", 3, None, "a" * 40])
def test_text_that_can_be_no_strategy_is_refused(
    round_settings: RoundSettingsFactory, strategy: object
) -> None:
    with pytest.raises(InvalidMessage, match="round plan: strategy: "):
        parse_round_plan(travelled(round_settings()) | {"strategy": strategy})


@pytest.mark.parametrize(
    ("topology", "receiver"), [("secure", "secure-aggregator"), ("direct", "main-server")]
)
def test_topology_says_who_receives_updates(
    round_settings: RoundSettingsFactory, topology: str, receiver: str
) -> None:
    assert round_settings(topology=topology).receiver == receiver


def test_masked_vector_has_two_coordinates_more_than_the_model(
    round_settings: RoundSettingsFactory,
) -> None:
    assert round_settings(size=9).vector_size == 11


def test_work_is_the_part_that_training_needs(round_settings: RoundSettingsFactory) -> None:
    assert round_settings(epochs=7, batch_size=9, learning_rate=0.5).work == LocalWork(7, 9, 0.5)


def test_settings_of_a_round_cannot_be_changed(round_settings: RoundSettingsFactory) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        round_settings().round = 4  # type: ignore[misc]


def small_round(name: str, value: object) -> dict[str, object]:
    """Members beside which the extremes of `name` cannot wrap."""
    return {"size": 1, "weight_cap": 1, "cohort_cap": 2, "min_cohort": 2} | {name: value}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("end", [0, 1])
def test_both_ends_of_each_range_are_accepted(
    round_settings: RoundSettingsFactory, name: str, end: int
) -> None:
    value = RANGES[name][end]
    message = travelled(round_settings(**small_round(name, value)))
    assert getattr(parse_round_plan(message), name) == value


@pytest.mark.parametrize("name", RANGES)
def test_value_outside_its_range_is_refused_by_name(
    round_settings: RoundSettingsFactory, name: str
) -> None:
    low, high = RANGES[name]
    for value in (
        (math.nextafter(low, 0), math.nextafter(high, math.inf))
        if name in FRACTIONS
        else (low - 1, high + 1)
    ):
        with pytest.raises(InvalidMessage, match=f"round plan: {name}: "):
            parse_round_plan(travelled(round_settings()) | small_round(name, value))


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(
    "value",
    ["1", True, [], math.nan, math.inf, -math.inf, 10**400, -(10**400), None],
    ids=lambda v: str(v)[:6],
)
def test_member_that_is_no_usable_number_is_refused(
    round_settings: RoundSettingsFactory, name: str, value: object
) -> None:
    if name == "clipping_norm" and value is None:
        return
    with pytest.raises(InvalidMessage, match=f"round plan: {name}: "):
        parse_round_plan(travelled(round_settings()) | {name: value})


@pytest.mark.parametrize("name", sorted(RANGES.keys() - FRACTIONS))
def test_whole_number_written_as_a_fraction_is_refused(
    round_settings: RoundSettingsFactory, name: str
) -> None:
    with pytest.raises(InvalidMessage, match=name):
        parse_round_plan(travelled(round_settings()) | {name: 2.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("federation", "No"),
        ("detector", "../x"),
        ("detector", None),
        ("architecture", ""),
        ("base_version", "0" * 63),
        ("base_version", None),
        ("topology", "both"),
        ("topology", None),
        ("topology", []),
        ("sealing_key", None),
        ("sealing_key", "not base64"),
        ("sealing_key", "YQ"),
        ("sealing_key", "é"),
        ("sealing_key", "A" * 4100),
    ],
)
def test_text_member_that_is_not_what_it_should_be_is_refused(
    round_settings: RoundSettingsFactory, name: str, value: object
) -> None:
    with pytest.raises(InvalidMessage):
        parse_round_plan(travelled(round_settings()) | {name: value})


@pytest.mark.parametrize("name", [field.name for field in structs.fields(RoundPlan)])
def test_missing_member_is_refused(round_settings: RoundSettingsFactory, name: str) -> None:
    message = travelled(round_settings())
    del message[name]
    with pytest.raises(InvalidMessage):
        parse_round_plan(message)


def test_unknown_member_is_refused(round_settings: RoundSettingsFactory) -> None:
    with pytest.raises(InvalidMessage, match="same version of every service"):
        parse_round_plan(travelled(round_settings()) | {"noise_multiplier": 1.0})


@pytest.mark.parametrize("message", [None, [], "x", 1, {}, [["round", 1]]], ids=repr)
def test_message_that_is_no_object_of_settings_is_refused(message: object) -> None:
    with pytest.raises(InvalidMessage):
        parse_round_plan(message)


@pytest.mark.parametrize(
    ("fits", "wraps"),
    [
        (
            {"weight_cap": 2**20, "cohort_cap": 2**11 - 1},
            {"weight_cap": 2**20, "cohort_cap": 2**11},
        ),
        ({"size": 2**28, "cohort_cap": 2**4 - 1}, {"size": 2**28, "cohort_cap": 2**4}),
    ],
    ids=["values", "clamp count"],
)
def test_settings_whose_sums_could_wrap_are_refused(
    round_settings: RoundSettingsFactory, fits: dict[str, Any], wraps: dict[str, Any]
) -> None:
    parse_round_plan(travelled(round_settings(**fits)))
    with pytest.raises(InvalidMessage, match="wrap around"):
        parse_round_plan(travelled(round_settings(**wraps)))


@given(st.data())
def test_any_member_of_any_kind_is_accepted_or_refused_politely(
    round_settings: RoundSettingsFactory, data: st.DataObject
) -> None:
    message = travelled(round_settings())
    message[data.draw(st.sampled_from(sorted(message)))] = data.draw(JSON)
    try:
        parse_round_plan(message)
    except DoorbellError as refused:
        assert isinstance(refused, InvalidMessage)
