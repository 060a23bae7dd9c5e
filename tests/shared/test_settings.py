"""Settings: what each variable is by default, and that a bad value names its variable."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from datetime import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.settings import BellSettings, DeviceSettings, port_of
from learning.architectures import ARCHITECTURES, architecture
from main_server.settings import MainSettings
from sec_agg.settings import AggregatorSettings
from shared.errors import SettingsError
from shared.round.plan import RoundPlan, parse_round_plan
from shared.settings import OperatorSettings, declared_in

RoundSettingsFactory = Callable[..., RoundPlan]
Environ = Mapping[str, str]


def device(environ: Environ) -> DeviceSettings:
    return DeviceSettings.read(1, environ)


def test_device_settings_by_default() -> None:
    assert DeviceSettings.read(2, {}) == DeviceSettings(
        name="device-2",
        client="client_2",
        data=Path("var/pictures"),
        folder=Path("var/devices/device-2"),
        cache=Path("var/cache"),
        url="http://localhost:8002",
        main_url="http://localhost:8000",
        aggregator_url="http://localhost:8003",
        trainer_max_mb=2048,
        join_code=None,
        local_codes=Path("var/main-server"),
        wait_for_work=True,
        train_at=None,
        train_after_new=None,
        bell=BellSettings(
            detectors=(),
            camera=None,
            watch=False,
            cool_down_s=30.0,
            false_alarms=0.05,
            keep_days=30.0,
            keep_mb=500.0,
            notify=(),
            webhook=None,
            webhook_secret=None,
            mqtt=None,
            tell_pictures=False,
        ),
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"DOORBELL_WATCH": "yes"}, "there is no camera"),
        ({"DOORBELL_WEBHOOK": "https://me:secret@example.org"}, "belong together"),
        ({"DOORBELL_WEBHOOK_SECRET": "whsec_secret"}, "belong together"),
        ({"DOORBELL_DETECTORS": "face,../etc"}, "DOORBELL_DETECTORS cannot be"),
        ({"DOORBELL_FALSE_ALARMS": "0.6"}, "DOORBELL_FALSE_ALARMS cannot be"),
    ],
    ids=str,
)
def test_doorbell_that_could_not_work_is_refused_without_telling_a_secret(
    environ: Environ, said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        device(environ)
    assert "secret" not in str(refused.value).replace("_SECRET", "")


def test_addresses_of_the_owner_are_not_shown() -> None:
    environ = {
        "DOORBELL_CAMERA": "rtsp://me:secret@camera",
        "DOORBELL_MQTT": "mqtts://me:secret@broker",
        "DOORBELL_NOTIFY": "mqtts://me:secret@broker",
    }
    assert "secret" not in repr(
        device(
            environ
            | {"DOORBELL_WEBHOOK": "https://x/secret", "DOORBELL_WEBHOOK_SECRET": "whsec_secret"}
        )
    )


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", ()),
        (" , ", ()),
        ("mqtt://a", ("mqtt://a",)),
        ("mqtt://a https://b/c", ("mqtt://a", "https://b/c")),
        ("mqtt://a,https://b/c\n\thttp://d,", ("mqtt://a", "https://b/c", "http://d")),
        ("https://b/c?x=1,2 ,  mqtt://me:p,w@a", ("https://b/c?x=1,2", "mqtt://me:p,w@a")),
        ("mqtt://a b", ("mqtt://a b",)),
    ],
    ids=str,
)
def test_channels_are_separated_by_commas_or_space(text: str, urls: tuple[str, ...]) -> None:
    assert device({"DOORBELL_NOTIFY": text}).bell.notify == urls


def test_main_server_settings_by_default() -> None:
    assert MainSettings.read({}) == MainSettings(
        federation="doorbell",
        folder=Path("var/main-server"),
        topology="secure",
        architecture="efficientnet-lite0-head",
        epochs=None,
        batch_size=None,
        learning_rate=None,
        strategy="fedavg",
        server_learning_rate=1.0,
        clipping_norm=None,
        value_range=1.0,
        weight_cap=4096,
        cohort_cap=1024,
        min_cohort=2,
        seed=0,
        max_body_mb=64,
        device_networks=(),
        database_url=None,
        blobs=None,
        s3_endpoint=None,
        secret=None,
        round_deadline_s=600.0,
        target_cohort=None,
        max_regression=0.1,
        gate_deadline_s=120.0,
        keep_versions=20,
    )


def test_aggregator_settings_by_default() -> None:
    assert AggregatorSettings.read({}) == AggregatorSettings(
        folder=Path("var/secure-aggregator"),
        main_url="http://localhost:8000",
        max_body_mb=64,
        join_code=None,
        local_codes=Path("var/main-server"),
    )


def test_operator_settings_by_default() -> None:
    assert OperatorSettings.read({}) == OperatorSettings(token=None, trusted_proxies=0)


def test_services_look_for_a_code_where_the_main_server_of_the_same_home_leaves_it() -> None:
    environ = {"DOORBELL_HOME": "/srv/bell", "DOORBELL_DEVICE_NAME": "porch"}
    folder = MainSettings.read(environ).folder
    assert device(environ).local_codes == AggregatorSettings.read(environ).local_codes == folder


@pytest.mark.parametrize("number", [1, 2, 3, 10])
def test_devices_have_the_ports_that_the_services_leave_free(number: int) -> None:
    assert [port_of(n) for n in (1, 2, 3, 4)] == [8001, 8002, 8004, 8005]
    assert DeviceSettings.read(number, {}).url == f"http://localhost:{port_of(number)}"


def test_devices_on_one_machine_share_no_name_folder_or_address() -> None:
    devices = [DeviceSettings.read(number, {}) for number in range(1, 20)]
    for member in ("name", "client", "folder", "url"):
        assert len({getattr(one, member) for one in devices}) == len(devices)


@pytest.mark.parametrize("number", [0, -1])
def test_device_numbers_begin_at_one(number: int) -> None:
    with pytest.raises(SettingsError, match="begin at 1"):
        DeviceSettings.read(number, {})


CODE, TOKEN = f"doorbell-{'a' * 32}-{'0' * 32}", "!not-a-secret-at-all~"
GOOD: list[tuple[Callable[[Environ], Any], str, str, str, object]] = [
    (device, "DOORBELL_DEVICE_NAME", "porch", "name", "porch"),
    (device, "DOORBELL_DEVICE_NAME", "porch", "folder", Path("var/devices/porch")),
    (device, "DOORBELL_CLIENT", "client_9", "client", "client_9"),
    (device, "DOORBELL_HOME", "/srv/bell", "folder", Path("/srv/bell/devices/device-1")),
    (device, "DOORBELL_HOME", "/srv/bell", "data", Path("/srv/bell/pictures")),
    (device, "DOORBELL_HOME", "/srv/bell", "cache", Path("/srv/bell/cache")),
    (device, "DOORBELL_DATA", "/pictures", "data", Path("/pictures")),
    (device, "DOORBELL_CACHE", "/cache", "cache", Path("/cache")),
    (device, "DOORBELL_DEVICE_URL", "https://bell.example.org/", "url", "https://bell.example.org"),
    (device, "DOORBELL_MAIN_URL", "http://10.0.0.1:80", "main_url", "http://10.0.0.1:80"),
    (device, "DOORBELL_AGGREGATOR_URL", "http://[::1]:9/a/", "aggregator_url", "http://[::1]:9/a"),
    (device, "DOORBELL_TRAINER_MAX_MB", "256", "trainer_max_mb", 256),
    (device, "DOORBELL_JOIN_CODE", CODE, "join_code", CODE),
    (device, "DOORBELL_WAIT_FOR_WORK", "no", "wait_for_work", False),
    (device, "DOORBELL_TRAIN_AT", "03:30", "train_at", time(3, 30)),
    (device, "DOORBELL_TRAIN_AFTER_NEW", "50", "train_after_new", 50),
    (device, "DOORBELL_HOME", "/srv/bell", "local_codes", Path("/srv/bell/main-server")),
    (MainSettings.read, "DOORBELL_HOME", "/srv/bell", "folder", Path("/srv/bell/main-server")),
    (MainSettings.read, "DOORBELL_FEDERATION", "street", "federation", "street"),
    (MainSettings.read, "DOORBELL_TOPOLOGY", "direct", "topology", "direct"),
    (MainSettings.read, "DOORBELL_ARCHITECTURE", "porch-cnn", "architecture", "porch-cnn"),
    (MainSettings.read, "DOORBELL_EPOCHS", "100", "epochs", 100),
    (MainSettings.read, "DOORBELL_BATCH_SIZE", "1024", "batch_size", 1024),
    (MainSettings.read, "DOORBELL_LEARNING_RATE", "1", "learning_rate", 1.0),
    (MainSettings.read, "DOORBELL_SERVER_LEARNING_RATE", "10", "server_learning_rate", 10.0),
    (MainSettings.read, "DOORBELL_CLIPPING_NORM", "1e9", "clipping_norm", 1e9),
    (MainSettings.read, "DOORBELL_VALUE_RANGE", "1e-3", "value_range", 1e-3),
    (MainSettings.read, "DOORBELL_WEIGHT_CAP", "1048576", "weight_cap", 2**20),
    (MainSettings.read, "DOORBELL_COHORT_CAP", "2048", "cohort_cap", 2048),
    (MainSettings.read, "DOORBELL_MIN_COHORT", "1024", "min_cohort", 1024),
    (MainSettings.read, "DOORBELL_SEED", "4294967295", "seed", 2**32 - 1),
    (MainSettings.read, "DOORBELL_MAX_BODY_MB", "1024", "max_body_mb", 1024),
    (
        AggregatorSettings.read,
        "DOORBELL_HOME",
        "/srv/bell",
        "folder",
        Path("/srv/bell/secure-aggregator"),
    ),
    (
        AggregatorSettings.read,
        "DOORBELL_MAIN_URL",
        "https://main.example.org",
        "main_url",
        "https://main.example.org",
    ),
    (AggregatorSettings.read, "DOORBELL_MAX_BODY_MB", "1", "max_body_mb", 1),
    (AggregatorSettings.read, "DOORBELL_JOIN_CODE", CODE, "join_code", CODE),
    (
        MainSettings.read,
        "DOORBELL_DEVICE_NETWORKS",
        "10.0.0.0/8, fd00::/8",
        "device_networks",
        (ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    ),
    (
        MainSettings.read,
        "DOORBELL_DEVICE_NETWORKS",
        "192.0.2.7",
        "device_networks",
        (ip_network("192.0.2.7/32"),),
    ),
    (OperatorSettings.read, "DOORBELL_OPERATOR_TOKEN", TOKEN, "token", TOKEN),
    (OperatorSettings.read, "DOORBELL_TRUSTED_PROXIES", "5", "trusted_proxies", 5),
]


@pytest.mark.parametrize(("read", "variable", "text", "member", "value"), GOOD)
def test_variable_is_read(
    read: Callable[[Environ], Any], variable: str, text: str, member: str, value: object
) -> None:
    assert getattr(read({variable: text}), member) == value
    assert getattr(read({}), member) != value


@pytest.mark.parametrize(
    "read", [device, MainSettings.read, AggregatorSettings.read, OperatorSettings.read]
)
def test_empty_variable_counts_as_missing(read: Callable[[Environ], Any]) -> None:
    assert read({variable: "" for _, variable, *_ in GOOD}) == read({})


def test_process_environment_is_what_is_read_without_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in [name for name in os.environ if name.startswith("DOORBELL_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("DOORBELL_HOME", "/srv/bell")
    assert DeviceSettings.read(1).folder == Path("/srv/bell/devices/device-1")
    assert MainSettings.read().folder == Path("/srv/bell/main-server")
    assert AggregatorSettings.read().folder == Path("/srv/bell/secure-aggregator")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MainSettings.read({}).seed = 1  # type: ignore[misc]


BAD_URLS = [
    "localhost:8000",
    "ftp://a",
    "http://",
    "//a",
    "http://a?b=1",
    "http://a/?",
    "http://a#b",
    "http://a:port",
    "http://a:99999",
    "http://a:0",
    "http://[::1",
    "javascript:alert(1)",
]
BAD_WHOLES = ["one", "1.5", "-1", "1_0", "0x10", " 7", "٣", "²", "nan", "9" * 5000]
BAD_FRACTIONS = ["x", "0", "-1", "nan", "inf", "1e-10", "1e400", "0,5"]
BAD_TOKENS = [
    "x" * 19,
    "x" * 1001,
    f"{'x' * 20} ",
    f"{'x' * 10} {'x' * 10}",
    f"{'x' * 20}\n",
    f"{'x' * 20}é",
    "\x7f" * 20,
]
BAD: dict[str, tuple[Callable[[Environ], Any], list[str]]] = {
    "DOORBELL_DEVICE_NAME": (device, ["Porch", "a b", "../a", "a" * 33]),
    "DOORBELL_CLIENT": (device, ["Client", "a/b"]),
    "DOORBELL_DEVICE_URL": (device, BAD_URLS),
    "DOORBELL_MAIN_URL": (AggregatorSettings.read, BAD_URLS),
    "DOORBELL_AGGREGATOR_URL": (device, BAD_URLS),
    "DOORBELL_TRAINER_MAX_MB": (device, ["255", "1048577", *BAD_WHOLES]),
    "DOORBELL_WAIT_FOR_WORK": (device, ["Yes", "true", "1"]),
    "DOORBELL_TRAIN_AT": (device, ["3:30", "24:00", "03:60", "03:30:00", "noon"]),
    "DOORBELL_TRAIN_AFTER_NEW": (device, ["0", "1048577", *BAD_WHOLES]),
    "DOORBELL_FEDERATION": (MainSettings.read, ["My street", "-"]),
    "DOORBELL_TOPOLOGY": (MainSettings.read, ["Secure", "both", "secure "]),
    "DOORBELL_ARCHITECTURE": (MainSettings.read, ["resnet", "Porch-CNN"]),
    "DOORBELL_EPOCHS": (MainSettings.read, ["0", "101", *BAD_WHOLES]),
    "DOORBELL_BATCH_SIZE": (MainSettings.read, ["0", "1025", *BAD_WHOLES]),
    "DOORBELL_LEARNING_RATE": (MainSettings.read, ["1.01", *BAD_FRACTIONS]),
    "DOORBELL_SERVER_LEARNING_RATE": (MainSettings.read, ["10.1", *BAD_FRACTIONS]),
    "DOORBELL_CLIPPING_NORM": (MainSettings.read, ["1.1e9", *BAD_FRACTIONS]),
    "DOORBELL_VALUE_RANGE": (MainSettings.read, ["1.1e9", *BAD_FRACTIONS]),
    "DOORBELL_WEIGHT_CAP": (MainSettings.read, ["0", "1048577", *BAD_WHOLES]),
    "DOORBELL_COHORT_CAP": (MainSettings.read, ["1", "2049", *BAD_WHOLES]),
    "DOORBELL_MIN_COHORT": (MainSettings.read, ["1", "1048577", *BAD_WHOLES]),
    "DOORBELL_SEED": (MainSettings.read, ["4294967296", *BAD_WHOLES]),
    "DOORBELL_MAX_BODY_MB": (AggregatorSettings.read, ["0", "1025", *BAD_WHOLES]),
    "DOORBELL_DEVICE_NETWORKS": (
        MainSettings.read,
        ["here", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8,", ",", "::/129"],
    ),
    "DOORBELL_OPERATOR_TOKEN": (OperatorSettings.read, BAD_TOKENS),
    "DOORBELL_TRUSTED_PROXIES": (OperatorSettings.read, ["6", *BAD_WHOLES]),
}


@pytest.mark.parametrize(
    ("variable", "text"), [(name, text) for name, (_, texts) in BAD.items() for text in texts]
)
def test_bad_value_names_its_variable(variable: str, text: str) -> None:
    read, _ = BAD[variable]
    with pytest.raises(SettingsError) as refused:
        read({variable: text})
    assert refused.value.happened.startswith(f"{variable} cannot be ")
    assert refused.value.todo.startswith(f"Fix {variable}")
    assert refused.value.kept == "The service was not started."


def test_every_variable_is_tried_with_good_and_bad_values() -> None:
    paths = {"DOORBELL_HOME", "DOORBELL_DATA", "DOORBELL_CACHE"}
    assert {variable for _, variable, *_ in GOOD} == BAD.keys() | paths | {"DOORBELL_JOIN_CODE"}


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_token_that_cannot_be_used_is_not_shown(token: str) -> None:
    with pytest.raises(SettingsError) as refused:
        OperatorSettings.read({"DOORBELL_OPERATOR_TOKEN": token})
    assert token.strip() not in str(refused.value)


def test_secrets_are_in_no_repr() -> None:
    environ = {"DOORBELL_OPERATOR_TOKEN": TOKEN, "DOORBELL_JOIN_CODE": CODE}
    shown = repr(
        [OperatorSettings.read(environ), device(environ), AggregatorSettings.read(environ)]
    )
    assert TOKEN not in shown
    assert CODE not in shown


@pytest.mark.parametrize(
    "environ",
    [
        {"DOORBELL_WEIGHT_CAP": "1048576", "DOORBELL_COHORT_CAP": "1025"},
        {"DOORBELL_MIN_COHORT": "3", "DOORBELL_COHORT_CAP": "2"},
    ],
    ids=["sums could wrap", "no cohort is ever large enough"],
)
def test_values_that_do_not_go_together_are_refused_by_name(environ: Environ) -> None:
    for variable in environ:
        with pytest.raises(SettingsError, match=variable):
            MainSettings.read(environ)


@given(
    architecture_name=st.sampled_from(sorted(ARCHITECTURES)),
    rate=st.floats(min_value=0, max_value=2),
    norm=st.floats(min_value=0, max_value=2e9),
    value_range=st.floats(min_value=0, max_value=2e9),
    weight_cap=st.integers(1, 2**20),
    cohort_cap=st.integers(2, 2**20) | st.integers(2, 2048),
)
@settings(max_examples=200)
def test_every_round_of_a_main_server_that_starts_is_one_that_devices_accept(
    round_settings: RoundSettingsFactory,
    architecture_name: str,
    rate: float,
    norm: float,
    value_range: float,
    weight_cap: int,
    cohort_cap: int,
) -> None:
    environ = {
        "DOORBELL_ARCHITECTURE": architecture_name,
        "DOORBELL_LEARNING_RATE": repr(rate),
        "DOORBELL_CLIPPING_NORM": repr(norm),
        "DOORBELL_VALUE_RANGE": repr(value_range),
        "DOORBELL_WEIGHT_CAP": str(weight_cap),
        "DOORBELL_COHORT_CAP": str(cohort_cap),
    }
    try:
        mine = MainSettings.read(environ)
    except SettingsError:
        return
    opened = round_settings(
        size=architecture(architecture_name).size,
        learning_rate=mine.learning_rate,
        clipping_norm=mine.clipping_norm,
        value_range=mine.value_range,
        weight_cap=mine.weight_cap,
        cohort_cap=mine.cohort_cap,
        min_cohort=mine.min_cohort,
    )
    assert parse_round_plan(opened.to_json()) == opened


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DATABASE_URL", "mysql://user:hunter2@host/name"),
        ("DATABASE_URL", "postgresql://user:hunter2@host"),
        ("DOORBELL_BLOBS", "s3://key:hunter2@bucket"),
        ("DOORBELL_BLOBS", "/srv/hunter2"),
    ],
)
def test_places_that_cannot_be_used_are_refused_without_being_shown(
    variable: str, text: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        MainSettings.read({variable: text})
    assert variable in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_servers_take_the_database_as_heroku_names_it_and_devices_do_not() -> None:
    environ = {
        "DATABASE_URL": "postgres://user:word@host:5432/name",
        "DOORBELL_BLOBS": "s3://bucket-1/federation",
    }
    for server in (MainSettings.read(environ), AggregatorSettings.read(environ)):
        assert (server.database_url, server.blobs) == (
            environ["DATABASE_URL"],
            environ["DOORBELL_BLOBS"],
        )
        assert "word" not in repr(server)
    assert "word" not in repr(DeviceSettings.read(1, environ))


UNUSABLE = {
    "DATABASE_URL": "mysql://nowhere",
    "DOORBELL_BLOBS": "/srv/blobs",
    "DOORBELL_S3_ENDPOINT": "nowhere",
    "DOORBELL_SECRET": "short",
    "DOORBELL_MAX_BODY_MB": "0",
    "DOORBELL_DEVICE_URL": "nowhere",
    "DOORBELL_AGGREGATOR_URL": "nowhere",
    "DOORBELL_WATCH": "perhaps",
    "DOORBELL_SEED": "-1",
}


@pytest.mark.parametrize(
    ("read", "used"),
    [
        (device, {"DOORBELL_DEVICE_URL", "DOORBELL_AGGREGATOR_URL", "DOORBELL_WATCH"}),
        (MainSettings.read, {"DOORBELL_SEED", *list(UNUSABLE)[:5]}),
        (AggregatorSettings.read, set(list(UNUSABLE)[:5])),
        (OperatorSettings.read, set()),
    ],
)
def test_service_is_stopped_by_the_variables_that_it_uses_alone(
    read: Callable[[Environ], Any], used: set[str]
) -> None:
    read({name: value for name, value in UNUSABLE.items() if name not in used})
    for variable in used:
        with pytest.raises(SettingsError, match=f"^{variable} cannot be "):
            read({variable: UNUSABLE[variable]})


@pytest.mark.parametrize("kind", [DeviceSettings, MainSettings, AggregatorSettings])
def test_every_setting_is_declared_with_a_sentence_and_one_way(kind: type) -> None:
    declared = list(declared_in(kind))
    assert all(setting.sentence and setting.values.range for setting in declared)
    by_variable = {setting.variable: setting for setting in declared}
    assert all(by_variable[setting.variable] is setting for setting in declared)
