"""What moves and what only changes, in scenes that are made here; and a watch that rings once for
each visit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from device.camera.camera import Camera, Frame, NoPicture
from device.camera.motion import WIDTH_PX, Motion, Watch, grey

HEIGHT_PX = 90
Light = float | NDArray[np.float64]
RNG = np.random.default_rng(7)
PORCH = cv2.resize(
    RNG.integers(60, 190, (9, 16)).astype(np.float64),
    (WIDTH_PX, HEIGHT_PX),
    interpolation=cv2.INTER_CUBIC,
)
PORCH += RNG.normal(0, 12, PORCH.shape)
LAMP = 1 + 0.9 * np.exp(-((np.arange(WIDTH_PX) - 40) ** 2) / 1800) * np.ones(
    (HEIGHT_PX, 1)
)  # lights the left half


NOISE = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_noise_in_each_test() -> None:
    RNG.bit_generator.state = NOISE


def shot(
    light: Light = 1.0,
    person: float | None = None,
    size: tuple[int, int] = (12, 36),
    shade: int = 40,
    noise: float = 3.0,
    leaves: float | None = None,
) -> NDArray[np.uint8]:
    """Take a picture of the porch; a person stands with the left edge so far from the left, in
    pixels.
    """
    porch = PORCH.copy()
    if leaves is not None:
        porch[5:40, 100:140] += 40 * np.sin(1.3 * leaves + np.arange(40) / 2)
    if person is not None:
        width, height = size
        x = max(0, round(person))
        porch[HEIGHT_PX - 10 - height : HEIGHT_PX - 10, x : max(0, round(person) + width)] = shade
    return np.clip(porch * light + RNG.normal(0, noise, porch.shape), 0, 255).astype(np.uint8)


def walk(step_px: float = 4.0, **look: Any) -> list[NDArray[np.uint8]]:
    width = look.get("size", (12, 36))[0]
    return [
        shot(person=-width + number * step_px, **look)
        for number in range(int((WIDTH_PX + width) / step_px) + 1)
    ]


def still(seconds: float = 4.0, **look: Any) -> list[NDArray[np.uint8]]:
    return [shot(**look) for _ in range(int(5 * seconds))]


def hunting(shots: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Make every other picture darker, as cameras do that cannot decide on an exposure."""
    return [
        (picture * (0.75 if number % 2 else 1.0)).astype(np.uint8)
        for number, picture in enumerate(shots)
    ]


def moving(shots: Sequence[NDArray[np.uint8]]) -> list[bool]:
    motion = Motion()
    return [motion.moves(picture) > 0.0 for picture in shots]


@pytest.mark.parametrize(
    "shots",
    [
        pytest.param(lambda: still() + walk(), id="walk"),
        pytest.param(lambda: still() + walk(14.0), id="run"),
        pytest.param(lambda: still() + walk(0.5), id="stroll"),
        pytest.param(lambda: still() + walk(size=(6, 16)), id="far"),
        pytest.param(lambda: still() + walk(size=(50, 70)), id="near"),
        pytest.param(lambda: still() + walk(shade=105), id="coat-like-the-wall"),
        pytest.param(lambda: still(light=0.12) + walk(light=0.12, shade=250), id="night"),
        pytest.param(lambda: still(noise=25.0) + walk(noise=25.0), id="noise"),
        pytest.param(lambda: still() + hunting(still()) + hunting(walk()), id="exposure-hunts"),
        pytest.param(
            lambda: still(light=1.0) + still(light=LAMP) + walk(light=LAMP), id="after-a-lamp"
        ),
    ],
)
def test_somebody_who_passes_moves(shots: Callable[[], list[NDArray[np.uint8]]]) -> None:
    seen = moving(shots())
    assert sum(seen) >= 5
    assert not any(seen[:20])


@pytest.mark.parametrize(
    "shots",
    [
        pytest.param(lambda: still(20), id="nothing"),
        pytest.param(lambda: still(20, noise=20.0), id="noise"),
        pytest.param(lambda: still(20, light=0.12, noise=8.0), id="noise-at-night"),
        pytest.param(lambda: [shot(1 - 0.9 * number / 500) for number in range(500)], id="dusk"),
        pytest.param(
            lambda: still() + [shot(1 - 0.5 * np.sin(n / 5) ** 2) for n in range(60)], id="clouds"
        ),
        pytest.param(lambda: still() + hunting(still(8)), id="exposure-hunts"),
        pytest.param(lambda: still() + still(6, light=1.8) + still(), id="lamp"),
        pytest.param(lambda: still() + still(6, light=LAMP) + still(), id="lamp-for-one-half"),
        pytest.param(
            lambda: still() + [shot(1 + (LAMP - 1) * min(1, n / 8)) for n in range(40)],
            id="slow-lamp",
        ),
        pytest.param(
            lambda: [*still(), shot(1.9), shot(1.2), shot(LAMP), shot(1.7), *still()],
            id="lightning",
        ),
        pytest.param(lambda: still() + [255 - picture for picture in still()], id="other-scene"),
        pytest.param(lambda: still() + still(person=60, size=(20, 16)) + still(), id="parcel"),
    ],
)
def test_what_only_changes_does_not_move(shots: Callable[[], list[NDArray[np.uint8]]]) -> None:
    assert not any(moving(shots()))


def test_share_is_that_of_what_moves() -> None:
    motion = Motion()
    shares = [motion.moves(picture) for picture in still() + walk(size=(24, 60))]
    assert max(shares) == pytest.approx(24 * 60 / (WIDTH_PX * HEIGHT_PX), rel=0.4)


def test_leaves_in_the_wind_are_learned_and_a_visitor_is_still_seen() -> None:
    motion = Motion()
    windy = [motion.moves(shot(leaves=number)) > 0.0 for number in range(150)]
    assert not any(windy[100:])
    assert (
        sum(motion.moves(shot(leaves=number, person=3 * number)) > 0.0 for number in range(40)) >= 5
    )


def test_what_stays_becomes_background_and_somebody_in_front_of_it_is_seen() -> None:
    motion = Motion()
    van: dict[str, Any] = {"person": 40, "size": (80, 70), "shade": 250}
    assert not any(motion.moves(picture) for picture in [*still(), *still(40, **van)])
    scenes = []
    for number in range(20):
        scene = shot(**van)
        scene[55:71, 50 + 3 * number : 56 + 3 * number] = 100
        scenes.append(scene)
    assert sum(motion.moves(scene) > 0.0 for scene in scenes) >= 5


def test_camera_that_changes_its_size_is_learned_anew() -> None:
    motion = Motion()
    pictures = [*still(), *(picture[:80] for picture in still())]
    assert not any(motion.moves(picture) for picture in pictures)


@pytest.mark.parametrize("width", [120, 320, 640, 1000, 1280], ids=str)
def test_picture_of_any_size_becomes_a_small_grey_one(width: int) -> None:
    large = np.zeros((width * 9 // 16, width, 3), np.uint8)
    large[:, : width // 2] = 200
    small = grey(bytes(cv2.imencode(".jpg", large)[1]))
    assert small.shape == pytest.approx((HEIGHT_PX, WIDTH_PX), abs=1)
    assert (small[:, 20].mean(), small[:, 140].mean()) == pytest.approx((200, 0), abs=3)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture"):
        grey(b"\xff\xd8\xff no picture")


class _Scenes:
    """A camera whose pictures are all there, five for each second of its own clock, as fast as they
    are asked for.

    None among them is a camera that has no picture, and a number puts its clock forward or back by
    so many seconds.
    """

    def __init__(
        self, scenes: Sequence[NDArray[np.uint8] | bytes | float | None], stop: threading.Event
    ) -> None:
        self._scenes, self._stop, self._now = iter(scenes), stop, 1e9

    def snapshot(self, max_age_s: float = 1.0, timeout_s: float = 2.0, after: float = 0.0) -> Frame:
        self._now += 0.2
        scene = next(self._scenes, self)
        if scene is self:
            self._stop.set()
        if isinstance(scene, float):
            self._now += scene
        if not isinstance(scene, (bytes, np.ndarray)) or self._now <= after:
            raise NoPicture("The camera gives no picture.")
        jpeg = scene if isinstance(scene, bytes) else cv2.imencode(".jpg", scene)[1].tobytes()  # type: ignore[call-overload]
        return Frame(jpeg, self._now)


@pytest.fixture
def rings_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Return at which second of so many scenes a watch rings."""
    monkeypatch.setattr("device.camera.motion._AGAIN_S", 0.0)

    def watch(scenes: Sequence[Any], cool_down_s: float = 30.0, fails: bool = False) -> list[float]:
        stop, rings = threading.Event(), list[float]()

        def ring(frame: Frame) -> None:
            rings.append(round(frame.at - 1e9, 1))
            if fails:
                raise RuntimeError("the doorbell is out of order")

        Watch(_Scenes(scenes, stop), ring, cool_down_s).run(stop)
        return rings

    return watch


def test_each_visit_rings_once(rings_in: Callable[..., list[float]]) -> None:
    rings = rings_in(still() + walk(2.0) + still(30) + walk(2.0) + still())
    assert len(rings) == 2
    assert 4.0 < rings[0] < 8.0
    assert rings[1] - rings[0] > 40.0


def test_who_comes_again_in_the_cool_down_does_not_ring(
    rings_in: Callable[..., list[float]],
) -> None:
    visits = still() + walk() + still(6) + walk() + still(6) + walk() + still()
    assert len(rings_in(visits, cool_down_s=60.0)) == 1
    assert len(rings_in(visits, cool_down_s=5.0)) == 3


def test_long_visit_rings_once(rings_in: Callable[..., list[float]]) -> None:
    to_and_fro = [picture for _ in range(4) for picture in walk()[3:-3] + walk()[3:-3][::-1]]
    assert len(rings_in(still() + to_and_fro, cool_down_s=10.0)) == 1


def test_who_comes_in_the_cool_down_and_stays_is_rung_for_after_it(
    rings_in: Callable[..., list[float]],
) -> None:
    to_and_fro = [picture for _ in range(2) for picture in walk()[3:-3] + walk()[3:-3][::-1]]
    rings = rings_in(still() + walk() + still(8) + to_and_fro, cool_down_s=30.0)
    assert len(rings) == 2
    assert rings[1] - rings[0] == pytest.approx(30.0, abs=2.0)


def test_watch_survives_a_camera_that_fails_and_shows_another_scene_then(
    rings_in: Callable[..., list[float]],
) -> None:
    gone: list[None] = [None] * 5
    moved = [np.roll(picture, 40, axis=1) for picture in still()]
    assert rings_in(still() + gone + moved + gone) == []
    assert len(rings_in(still() + gone + still() + walk())) == 1


def test_watch_survives_a_clock_that_is_put_back(rings_in: Callable[..., list[float]]) -> None:
    assert len(rings_in([*still(), -3600.0, *still(), *walk()])) == 1


def test_watch_survives_what_is_no_picture_and_a_ring_that_fails(
    rings_in: Callable[..., list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    scenes = [*still(), b"\xff\xd8\xff", *walk(), *still(40), *walk()]
    assert len(rings_in(scenes, fails=True)) == 2
    told = [
        record.exc_info[1]
        for record in caplog.records
        if record.levelno == logging.ERROR and record.exc_info
    ]
    assert [type(error) for error in told] == [ValueError, RuntimeError, RuntimeError]


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Callable[[Sequence[NDArray[np.uint8]]], Camera]]:
    made = []

    def play(shots: Sequence[NDArray[np.uint8]]) -> Camera:
        for number, picture in enumerate(shots):
            large = cv2.resize(picture, (1280, 720), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(tmp_path / f"{number:04}.jpg"), large)
        made.append(Camera(str(tmp_path), frames_per_s=50.0))
        return made[-1]

    yield play
    for one in made:
        one.stop()


@pytest.mark.heavy
def test_watch_of_a_real_camera_rings_once_for_who_passes(camera: Callable[..., Camera]) -> None:
    eyes, stop, rings = camera(still() + walk() + still()), threading.Event(), list[Frame]()
    watching = threading.Thread(target=Watch(eyes, rings.append).run, args=(stop,))
    watching.start()
    end = time.monotonic() + 20.0
    while not rings and time.monotonic() < end:
        time.sleep(0.01)
    seen = grey(rings[0].jpeg).astype(np.float64) - grey(cv2.imencode(".jpg", shot())[1].tobytes())
    time.sleep(2.5)  # the folder is played again, and again somebody passes, in the cool-down
    stop.set()
    watching.join(timeout=5.0)
    assert not watching.is_alive()
    assert len(rings) == 1
    assert np.abs(seen[45:80]).mean() > 2 * np.abs(seen[:40]).mean()  # somebody is in the picture


def test_watch_costs_little(camera: Callable[..., Camera]) -> None:
    eyes, motion = camera([*walk()]), Motion()
    jpeg = eyes.snapshot(timeout_s=20.0).jpeg
    begun = time.thread_time()
    for _ in range(50):
        motion.moves(grey(jpeg))
    assert (
        time.thread_time() - begun
    ) / 50 < 0.010  # seconds; five times a second: 5 % of one core at most
