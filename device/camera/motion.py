"""Does something move in front of the camera? A watch that rings by itself, once for each visit.

The background is a running Gaussian average (Wren et al., "Pfinder", 1997): of each pixel a mean
and a deviation, so that leaves in the wind soon count for less than a still wall. A mixture of
Gaussians (OpenCV's MOG2) was not taken: its means lag behind the light, and cannot be brought to
another one. Here the whole background first gets the light of the new picture (the median of the
ratios of their pixels, which a visitor who covers less than half of the picture does not move), so
clouds, dusk and a camera's automatic exposure change nothing.

A lamp may light one part only. Then that part differs from the background, but is still from the
next picture on; a visitor goes on moving. So only what differs and still changes is motion, and
what differs and is still is learned. Where more than half of the picture differs, it is taken for
another scene and learned at once: a visitor who comes that close was seen coming.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from device.camera.camera import FRAMES_PER_S, Frame
from shared.errors import DoorbellError

WIDTH_PX = 160
COOL_DOWN_S = 30.0

_DIFFERS = 12.0  # grey levels, of 255: less is noise in every picture
_DEVIATIONS = 3.0  # of the pixel's own past
_LEAST_SHARE = 0.008  # of the picture: somebody at ten metres in front of a wide-angle lens
_STILL_CHANGES = 0.05  # of what differs
_EVERYTHING = 0.5  # of the picture: beyond, nothing can be said but that it is another picture
_LEARN_S = 4.0  # time constant of what looks like the background
_ABSORB_S = 15.0  # time constant of what differs but is still
_WINDOW = 5  # of the last five pictures ...
_ENOUGH = 3  # ... so many must show motion
_KERNEL = np.ones((3, 3), np.uint8)
_AGAIN_S = 1.0  # until a camera that gave no picture is asked again
_VISIT_ENDS_S = 5.0  # without motion
_log = logging.getLogger(__name__)

Grey = NDArray[np.uint8]


class Motion:
    """Tells from picture to picture whether something moves.

    Args:
        frames_per_s: How many pictures a second it is shown.
    """

    def __init__(self, frames_per_s: float = FRAMES_PER_S) -> None:
        # The weight of one picture in an exponential average of this time constant.
        self._learn = 1.0 - np.exp(-1.0 / (frames_per_s * _LEARN_S))
        self._absorb = 1.0 - np.exp(-1.0 / (frames_per_s * _ABSORB_S))
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._mean: Any = None
        self._before: Any = None
        self._deviation: Any = None

    def moves(self, picture: Grey) -> float:
        """Look at the next picture.

        Args:
            picture: Grey uint8 [height, width], about `WIDTH_PX` wide; all of the same size.

        Returns:
            The share of the picture in which something moves, from 0 to 1; 0 while that is not sure
            yet.
        """
        now = cv2.GaussianBlur(picture, (5, 5), 0).astype(np.float32)
        if self._mean is None or self._mean.shape != now.shape:
            self._begin(now)
            return 0.0
        light = float(np.median((now + 1.0) / (self._mean + 1.0)))
        self._mean = _relit(self._mean, light)
        before = _relit(self._before, light)
        distance = np.abs(now - self._mean)
        differs = distance > np.maximum(_DIFFERS, _DEVIATIONS * self._deviation)
        if differs.mean() > _EVERYTHING:
            self._begin(now)
            return 0.0
        changes = np.abs(now - before) > _DIFFERS
        share, thing = _largest(differs)
        moving = share >= _LEAST_SHARE and bool(changes[thing].mean() >= _STILL_CHANGES)
        self._recent.append(moving)
        # What moves is not learned, what differs but is still slowly, the rest fast.
        of_the_different = np.where(changes, 0.0, self._absorb)
        rate = np.where(differs, of_the_different, self._learn)
        self._mean += rate * (now - self._mean)
        # Capped, or one visitor would make the place where they stood blind.
        capped = np.minimum(distance, 3 * _DIFFERS)
        self._deviation += self._absorb * (capped - self._deviation)
        self._before = now
        return share if moving and sum(self._recent) >= _ENOUGH else 0.0

    def _begin(self, now: NDArray[np.float32]) -> None:
        self._mean = now
        self._before = now
        self._deviation = np.zeros_like(now)
        self._recent.clear()


def _relit(picture: Any, light: float) -> Any:
    """Return a picture, float32[height, width], in another light; 1 is the same."""
    return np.clip((picture + 1.0) * light - 1.0, 0.0, 255.0)


def _largest(differs: NDArray[np.bool_]) -> tuple[float, NDArray[np.bool_]]:
    """Return the share of the largest connected part, specks left out, and where it is."""
    opened = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_OPEN, _KERNEL)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(opened, _KERNEL))
    if count == 1:
        return 0.0, differs
    areas = stats[:, cv2.CC_STAT_AREA]
    largest = 1 + int(np.argmax(areas[1:]))  # label 0 is the background
    return float(areas[largest]) / differs.size, labels == largest


def grey(jpeg: bytes) -> Grey:
    """Return a picture as `Motion` takes it; a large one is never decoded in full.

    Args:
        jpeg: Of a `Frame`.

    Returns:
        Grey uint8 [height, `WIDTH_PX`].

    Raises:
        ValueError: It is no picture.
    """
    data = np.frombuffer(jpeg, np.uint8)
    for size in (
        cv2.IMREAD_REDUCED_GRAYSCALE_8,
        cv2.IMREAD_REDUCED_GRAYSCALE_4,
        cv2.IMREAD_GRAYSCALE,
    ):
        picture = cv2.imdecode(data, size)
        if picture is None:
            raise ValueError("This is no picture.")
        height, width = picture.shape
        if width >= WIDTH_PX:
            break
    shape = (WIDTH_PX, max(1, round(height * WIDTH_PX / width)))
    resized: Grey = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
    return resized


class Source(Protocol):
    """What a watch needs of a camera."""

    def snapshot(self, max_age_s: float = ..., timeout_s: float = ..., after: float = ...) -> Frame:
        """Return a picture that was taken after a time."""
        ...


class Watch:
    """Watches a camera's pictures, and rings once for each visit.

    A visit ends when nothing has moved for a while; a visitor who comes in the cool-down and is
    still there after it is rung for then.

    Args:
        camera: Its pictures.
        on_motion: Called with the picture in which something moves, in the thread of the watch.
        cool_down_s: Seconds from one ring to the next, at least.
        frames_per_s: How many pictures a second the camera takes.
    """

    def __init__(
        self,
        camera: Source,
        on_motion: Callable[[Frame], None],
        cool_down_s: float = COOL_DOWN_S,
        frames_per_s: float = FRAMES_PER_S,
    ) -> None:
        self._camera = camera
        self._on_motion = on_motion
        self._cool_down_s = cool_down_s
        self._motion = Motion(frames_per_s)
        self._last_ring = self._last_motion = float("-inf")
        self._rung = False

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set; a camera without a picture is waited for."""
        last = 0.0
        while not stop.is_set():
            try:
                frame = self._camera.snapshot(timeout_s=_AGAIN_S, after=last)
            except DoorbellError:  # the camera's state and the log have the reason
                last = 0.0  # the clock may have been put back
                stop.wait(_AGAIN_S)
                continue
            last = frame.at
            try:
                if self._is_new_visit(frame):
                    self._on_motion(frame)
            except Exception:
                _log.exception("a picture of the watch could not be processed")

    def _is_new_visit(self, frame: Frame) -> bool:
        moves = self._motion.moves(grey(frame.jpeg)) > 0.0
        if frame.at - self._last_motion > _VISIT_ENDS_S:
            self._rung = False
        if moves:
            self._last_motion = frame.at
        if not moves or self._rung or frame.at - self._last_ring < self._cool_down_s:
            return False
        self._last_ring = frame.at
        self._rung = True
        return True
