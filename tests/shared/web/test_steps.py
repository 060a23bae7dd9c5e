"""A step over several detectors: what could be done is done, and the whole says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    Cancelled,
    DoorbellError,
    InvalidMessage,
    NotFound,
    OutOfOrder,
    PeerUnreachable,
    TrainingFailed,
)
from shared.web.steps import Answer, Done, do_each

NOT_READY = OutOfOrder("It is too early.", kept="", todo="Train first.")
ERRORS: dict[str, DoorbellError] = {
    "late": NOT_READY,
    "bad": InvalidMessage("It is malformed."),
    "gone": NotFound("It is gone."),
    "ill": TrainingFailed("The training gave up."),
    "away": PeerUnreachable("Nobody answered."),
}


def verb(detector: str) -> Done:
    if detector in ERRORS:
        raise ERRORS[detector]
    return Done("It is done.", {"round": 3})


def test_every_detector_is_done_in_order_and_says_so() -> None:
    asked: list[str] = []

    def noted(detector: str) -> Done:
        asked.append(detector)
        return verb(detector)

    answer = do_each(["person", "parcel"], noted, "nothing")
    assert asked == ["person", "parcel"]
    assert answer.said == "person: It is done.\nparcel: It is done."
    done = {"status": 200, "said": "It is done.", "round": 3}
    assert (answer.status, answer.ok, answer.data) == (
        200,
        True,
        {"detectors": {"person": done, "parcel": done}},
    )


def test_one_that_is_not_ready_holds_nothing_up() -> None:
    answer = do_each(["late", "person"], verb, "nothing")
    assert (answer.status, answer.ok) == (200, True)
    assert answer.said == "late: It is too early. Train first.\nperson: It is done."
    detectors = answer.data["detectors"]
    assert isinstance(detectors, dict)
    assert {name: entry["status"] for name, entry in detectors.items()} == {
        "late": 409,
        "person": 200,
    }
    assert detectors["late"]["type"] == "urn:doorbell:problem:out-of-order"


def test_what_its_owner_cancelled_is_not_followed_by_the_rest() -> None:
    asked: list[str] = []

    def cancelled(detector: str) -> Done:
        asked.append(detector)
        if detector == "parcel":
            raise Cancelled
        return verb(detector)

    answer = do_each(["person", "parcel", "face"], cancelled, "nothing")
    assert asked == ["person", "parcel"] and answer.status == 200
    assert answer.said.splitlines()[1].startswith("parcel: The training was cancelled.")
    assert do_each(["parcel", "face"], cancelled, "nothing").status == 409
    assert asked == ["person", "parcel", "parcel"]


def test_step_is_refused_where_none_was_ready() -> None:
    def early(_: str) -> Done:
        raise NOT_READY

    answer = do_each(["person", "parcel"], early, "nothing")
    assert (answer.status, answer.ok) == (409, False)
    assert answer.said.count("Train first.") == 2


def test_step_without_any_detector_says_what_is_missing() -> None:
    assert do_each([], verb, "There is no detector. Add pictures.") == Answer(
        409, "There is no detector. Add pictures."
    )


@pytest.mark.parametrize(
    ("detectors", "status"),
    [
        (["bad", "person"], 400),
        (["person", "gone", "late"], 404),
        (["late", "away"], 503),
        (["late", "bad"], 400),
        (["ill", "away", "bad", "late", "person"], 503),
        (["bad", "ill"], 500),
    ],
)
def test_failures_dominate_what_was_done_and_what_was_not_ready(
    detectors: list[str], status: int
) -> None:
    answer = do_each(detectors, verb, "nothing")
    assert (answer.status, answer.ok) == (status, False)
    assert len(answer.said.splitlines()) == len(detectors)


@given(st.lists(st.sampled_from(["person", "parcel", "cat", *ERRORS]), min_size=1, unique=True))
def test_order_of_detectors_does_not_change_the_status(detectors: list[str]) -> None:
    statuses = {
        do_each(order, verb, "nothing").status
        for order in (detectors, detectors[::-1], sorted(detectors))
    }
    assert len(statuses) == 1


def test_detectors_after_a_failure_are_still_done() -> None:
    answer = do_each(["away", "person"], verb, "nothing")
    assert "person: It is done." in answer.said


def test_detectors_may_come_one_by_one() -> None:
    def found() -> Iterator[str]:
        yield "person"

    assert do_each(found(), verb, "nothing").status == 200


def test_error_that_nobody_planned_for_is_not_hidden() -> None:
    broken: Callable[[str], Done] = lambda _: Done(str(1 // 0))  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        do_each(["person"], broken, "nothing")


@pytest.mark.parametrize(("status", "ok"), [(200, True), (399, True), (400, False), (503, False)])
def test_answer_is_ok_below_400(status: int, ok: bool) -> None:
    assert Answer(status, "said").ok is ok
