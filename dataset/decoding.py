"""Turn the bytes of one picture file into a small RGB square. The device runs it on files nobody
has vetted.

    bytes → size limit → which format → header → pixel limit → decode → upright → RGB → square

The order is the defence: nothing is decompressed before the header's own dimensions have been
checked, only four formats are ever handed to a parser, and a damaged picture is refused instead of
being filled up with grey.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from shared.errors import DatasetError

_JPEG = b"\xff\xd8\xff"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 50_000_000

# Raise it whenever the same bytes would give other pixels: caches of decoded pictures depend on it.
DECODER_VERSION = 1

# What shines through a transparent picture. Mid-grey keeps a black cut-out as visible as a white
# one.
BACKDROP = (128, 128, 128)

# A JPEG is decoded at an eighth, a quarter or half its size while that leaves this many pixels for
# each one kept.
# A 12-megapixel picture takes 20 ms instead of 400 ms, and values move by 1 or 2 of 255 on average.
DRAFT_OVERSAMPLING = 2


class UnusablePicture(DatasetError):
    """A file that is no picture we can learn from.

    Args:
        reason: Why, in a few words without a full stop, such as "empty file".
    """

    slug = "unusable-picture"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"A picture cannot be used: {reason}.",
            kept="The file was left as it is.",
            todo="Replace it with a JPEG, PNG, WebP or BMP file.",
        )
        self.reason = reason


def decode(data: bytes, size_px: int) -> NDArray[np.uint8]:
    """Decode one picture, whole and upright, and resize it to a square.

    The picture is stretched to the square. Cropping would lose the visitor at the edge of a wide
    doorbell picture, and bars on two sides would tell a model which camera took it. Stretching
    keeps everything, and one camera stretches all its pictures alike.

    Transparency shows mid-grey (`BACKDROP`), 16-bit values are divided by 257, an animation gives
    its first frame, and the EXIF orientation is applied.

    Args:
        data: The bytes of a JPEG (MPO as well), PNG, WebP or BMP file.
        size_px: Side of the square, at least 1.

    Returns:
        RGB uint8 [size_px, size_px, 3].

    Raises:
        UnusablePicture: The bytes are empty, too many, not a picture, broken, or claim more than
            `MAX_PIXELS`.
    """
    return _square(_pixels(data, DRAFT_OVERSAMPLING * size_px), size_px)


def as_jpeg(data: bytes) -> bytes:
    """Return a picture as a JPEG; one that begins as a JPEG does is returned as it is, without a
    look.

    Raises:
        UnusablePicture: As `decode` does, for all others.
    """
    if data.startswith(_JPEG):
        return data
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(_pixels(data), cv2.COLOR_RGB2BGR))[1])


def _pixels(data: bytes, draft_px: int | None = None) -> NDArray[np.uint8]:
    """Decode one picture, upright; a JPEG perhaps smaller, but with no side shorter than
    `draft_px`.

    Returns:
        RGB uint8 [height, width, 3].
    """
    check_file_size(len(data))
    opener = _opener(data)
    try:
        picture = opener(io.BytesIO(data))
        _check_pixels(*picture.size)
        if draft_px is not None and isinstance(picture, JpegImageFile):
            picture.draft(None, (draft_px, draft_px))
        picture.load()
        return _rgb(_upright(picture))
    except UnusablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnusablePicture(f"more than the limit of {MAX_PIXELS:,} pixels") from error
    except MemoryError as error:
        raise UnusablePicture("not enough memory to decode it") from error
    except (
        Exception
    ) as error:  # Pillow's plugins raise a dozen kinds on hostile bytes, and promise no list
        raise UnusablePicture("broken image") from error


def check_file_size(size_bytes: int) -> None:
    """Refuse a file by its size alone, so that an enormous one need not be read.

    Args:
        size_bytes: The file's length.

    Raises:
        UnusablePicture: The file is empty or longer than `MAX_FILE_BYTES`.
    """
    if size_bytes == 0:
        raise UnusablePicture("empty file")
    if size_bytes > MAX_FILE_BYTES:
        raise UnusablePicture(
            f"{size_bytes:,} bytes are more than the limit of {MAX_FILE_BYTES:,} bytes"
        )


def _check_pixels(width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise UnusablePicture(
            f"{width_px:,} x {height_px:,} pixels are more than the limit of {MAX_PIXELS:,} pixels"
        )


def _opener(data: bytes) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """Name the one parser for these bytes.

    Image.open(formats=...) chooses alike, but warns or fails by a limit of its own, global to the
    process, before the dimensions can be read. The file classes read the header and stop. An MPO,
    as phones write, opens as its first JPEG.
    """
    if data.startswith(_JPEG):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    if data.startswith(b"BM"):
        return BmpImageFile
    raise UnusablePicture("not an image")


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged tags around a sound picture are no reason to lose it."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode.startswith("I;16"):
        deep = np.asarray(picture).astype(np.uint32)
        grey = ((deep + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if picture.has_transparency_data:
        backdrop = Image.new("RGBA", picture.size, (*BACKDROP, 255))
        picture = Image.alpha_composite(backdrop, picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))


def _square(pixels: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Shrink by averaging areas, then enlarge what is still too small.

    In one step OpenCV would not average either axis as soon as one of them grows, and a wide strip
    would alias.
    """
    height, width = pixels.shape[:2]
    shrunk = cv2.resize(
        pixels, (min(width, size_px), min(height, size_px)), interpolation=cv2.INTER_AREA
    )
    square = cv2.resize(shrunk, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square, dtype=np.uint8)
