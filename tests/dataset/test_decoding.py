"""Decoding: every kind of file a person may drop into a folder gives the right pixels or the right
refusal.
"""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from dataset import decoding
from dataset.decoding import BACKDROP, MAX_FILE_BYTES, UnusablePicture, decode

ORANGE = (230, 120, 20)


def quarters() -> Image.Image:
    """Red, green / blue, white: every rotation and flip of it is a different picture."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = (255, 0, 0), (0, 255, 0)
    pixels[16:, :24], pixels[16:, 24:] = (0, 0, 255), (255, 255, 255)
    return Image.fromarray(pixels)


def encoded(picture: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG made by hand, for what Pillow reads but does not write."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def corners(square: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Top left, top right, bottom left, bottom right, each channel as 0 or 1."""
    low, high = len(square) // 4, len(square) * 3 // 4
    return [
        tuple((square[y, x] > 127).astype(int).tolist()) for y in (low, high) for x in (low, high)
    ]


R, G, B, W = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)


@pytest.mark.parametrize(
    ("format_", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 6),
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("MPO", {"quality": 95}, 6),
    ],
)
def test_formats_keep_their_colour(
    format_: str, options: dict[str, object], tolerance: int
) -> None:
    square = decode(encoded(Image.new("RGB", (40, 30), ORANGE), format_, **options), 16)
    assert square.shape == (16, 16, 3)
    assert square.dtype == np.uint8
    assert np.abs(square.astype(int) - ORANGE).max() <= tolerance


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (9, 7), 200),
        Image.new("LA", (9, 7), (200, 255)),
        Image.new("1", (9, 7), 1).convert("L").point(lambda _: 200),
        Image.new("P", (9, 7), 0),
        Image.fromarray(np.full((7, 9), 200 * 257, np.uint16)),
    ],
    ids=["grey", "grey with alpha", "one tone", "palette", "16-bit grey"],
)
def test_one_channel_becomes_three_equal_ones(picture: Image.Image) -> None:
    if picture.mode == "P":
        picture.putpalette([200, 200, 200])
    assert np.all(decode(encoded(picture, "PNG"), 4) == 200)


def test_black_and_white_spans_the_whole_range() -> None:
    square = decode(encoded(quarters().convert("1", dither=Image.Dither.NONE), "PNG"), 32)
    assert set(np.unique(square[[4, -4]][:, [4, -4]]).tolist()) == {0, 255}


def test_palette_colours_are_looked_up() -> None:
    assert corners(decode(encoded(quarters().quantize(4), "PNG"), 32)) == [R, G, B, W]


def test_transparency_shows_the_backdrop() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    for format_ in ("PNG", "WEBP"):
        assert np.all(decode(encoded(clear, format_, lossless=True), 4) == BACKDROP)
        assert (
            np.abs(
                decode(encoded(half, format_, lossless=True), 4)[0, 0].astype(int) - (192, 64, 64)
            ).max()
            <= 2
        )


def test_transparent_palette_entry_shows_the_backdrop() -> None:
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    assert np.all(decode(encoded(picture, "PNG", transparency=0), 4) == BACKDROP)


def test_cmyk_jpeg_is_neither_inverted_nor_refused() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 200, 200, 0)), "JPEG", quality=95)
    assert np.abs(decode(data, 8).astype(int) - (255, 55, 55)).max() <= 8


@pytest.mark.parametrize(
    ("value", "wanted"), [(0, 0), (257, 1), (300, 1), (32896, 128), (65535, 255)]
)
def test_16_bit_grey_is_scaled_not_clipped(value: int, wanted: int) -> None:
    data = encoded(Image.fromarray(np.full((5, 5), value, np.uint16)), "PNG")
    assert np.all(decode(data, 5) == wanted)


def test_16_bit_colour_is_scaled_not_clipped() -> None:
    row = b"\0" + struct.pack(">3H", 65535, 32896, 257) * 4
    assert decode(png(4, 4, 16, 2, row * 4), 4)[0, 0].tolist() == [255, 128, 1]


def test_16_bit_grey_with_alpha_is_scaled_and_composited() -> None:
    opaque, clear = struct.pack(">2H", 65535, 65535), struct.pack(">2H", 65535, 0)
    square = decode(png(2, 1, 16, 4, b"\0" + opaque + clear), 2)
    assert square[0, 0].tolist() == [255, 255, 255]
    assert square[0, 1].tolist() == list(BACKDROP)


@pytest.mark.parametrize(
    ("orientation", "wanted"),
    [
        (1, [R, G, B, W]),
        (2, [G, R, W, B]),
        (3, [W, B, G, R]),
        (4, [B, W, R, G]),
        (5, [R, B, G, W]),
        (6, [B, R, W, G]),
        (7, [W, G, B, R]),
        (8, [G, W, R, B]),
    ],
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(
    format_: str, orientation: int, wanted: list[tuple[int, int, int]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert corners(decode(encoded(quarters(), format_, quality=95, exif=exif), 32)) == wanted


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("tags", [b"no tags at all", b"MM\0*\0\0\xff\xff" + b"\xff" * 30])
def test_damaged_exif_does_not_lose_the_picture(tags: bytes) -> None:
    data = encoded(quarters(), "JPEG", quality=95, exif=b"Exif\0\0" + tags)
    assert corners(decode(data, 32)) == [R, G, B, W]


@pytest.mark.parametrize("format_", ["WEBP", "PNG"])
def test_animation_gives_its_first_frame(format_: str) -> None:
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "lime", "blue")]
    data = encoded(
        frames[0], format_, save_all=True, append_images=frames[1:], duration=50, lossless=True
    )
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
    assert np.all(decode(data, 4) == (255, 0, 0))


def test_one_pixel_fills_the_square() -> None:
    assert np.all(decode(encoded(Image.new("RGB", (1, 1), ORANGE), "PNG"), 7) == ORANGE)


def test_wide_picture_keeps_both_edges() -> None:
    pixels = np.zeros((10, 4000, 3), np.uint8)
    pixels[:, :500, 0] = pixels[:, -500:, 2] = 255
    square = decode(encoded(Image.fromarray(pixels), "PNG"), 16)
    assert np.all(square[:, 0] == (255, 0, 0))
    assert np.all(square[:, -1] == (0, 0, 255))


def test_wide_and_flat_picture_is_averaged_and_not_sampled() -> None:
    stripes = np.zeros((2, 4096), np.uint8)
    stripes[:, ::2] = 255
    square = decode(encoded(Image.fromarray(stripes), "PNG"), 16)
    assert np.abs(square.astype(int) - 127).max() <= 1


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_shrinking_by_whole_factors_is_the_mean_of_each_area(
    down: int, across: int, size_px: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(
        0, 256, (size_px * down, size_px * across, 3), np.uint8
    )
    means = pixels.reshape(size_px, down, size_px, across, 3).mean(axis=(1, 3))
    square = decode(encoded(Image.fromarray(pixels), "PNG"), size_px)
    assert np.abs(square - means).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("size", [(1600, 1200), (500, 400), (200, 150), (70, 50)])
def test_fast_jpeg_decoding_stays_close_to_the_whole_picture(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    picture = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    data = encoded(Image.fromarray(picture), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as whole:
        wanted = cv2.resize(np.asarray(whole), (32, 32), interpolation=cv2.INTER_AREA)
    difference = np.abs(decode(data, 32).astype(int) - wanted)
    assert difference.max() <= 16
    assert difference.mean() <= 2.5


def refusal(data: bytes) -> str:
    with pytest.raises(UnusablePicture) as caught:
        decode(data, 8)
    assert caught.value.reason in str(caught.value)
    return caught.value.reason


def test_empty_file_is_refused() -> None:
    assert refusal(b"") == "empty file"


@pytest.mark.parametrize(
    "data", [b"Dear diary, this is no picture.\n" * 40, b"%PDF-1.7\n", b"GIF89a" + bytes(50), b"\0"]
)
def test_other_files_are_refused_whatever_their_name(data: bytes) -> None:
    assert refusal(data) == "not an image"


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_file_is_refused(format_: str, part: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format_)
    assert refusal(data[: int(len(data) * part)]) == "broken image"


def test_truncated_pictures_are_not_filled_up_by_the_library() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("side", [7_100, 12_000, 60_000])
def test_pixel_bomb_is_refused_by_its_header(
    side: int, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the bomb was decoded"))
    reason = refusal(png(side, side, 8, 2, b""))
    assert reason == f"{side:,} x {side:,} pixels are more than the limit of 50,000,000 pixels"
    assert not recwarn.list


def test_webp_whose_canvas_is_a_bomb_is_refused() -> None:
    frame = encoded(Image.new("RGB", (8, 8)), "WEBP")[12:]
    canvas = struct.pack("<I", 59_999)[:3] * 2
    place = bytes(6) + struct.pack("<I", 7)[:3] * 2 + struct.pack("<I", 100)[:3] + b"\0"
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(place + frame)) + place + frame
    assert "50,000,000 pixels" in refusal(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_picture_at_the_pixel_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    assert decode(encoded(Image.new("RGB", (10, 10)), "PNG"), 2).shape == (2, 2, 3)
    assert "11 x 10 pixels" in refusal(encoded(Image.new("RGB", (11, 10)), "PNG"))


def test_enormous_file_is_refused() -> None:
    assert (
        refusal(bytes(MAX_FILE_BYTES + 1))
        == "67,108,865 bytes are more than the limit of 67,108,864 bytes"
    )


@settings(deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_picture_or_a_refusal_and_nothing_else(data: st.DataObject) -> None:
    format_ = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "MPO"]))
    file = bytearray(encoded(quarters(), format_))
    for place in data.draw(st.lists(st.integers(0, len(file) - 1), min_size=1, max_size=6)):
        file[place] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(file), 8).shape == (8, 8, 3)
    except UnusablePicture as error:
        assert error.reason
