"""The frozen body's features of many pictures, without TensorFlow, and their cache.

The body is the LiteRT file that `device/training/backbone.py` exports. A picture's features never
change, so they are kept beside the pictures under the digest of the picture's content.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device.vision.litert import Network
from learning.architectures.efficientnet_lite0_head import BODY_VERSION, FEATURES
from learning.finite import all_finite
from shared.errors import OutOfOrder

INPUT_PX: Final = 128
"""Height and width of the pictures that the body takes, in pixels."""


class Embedder:
    """The frozen body, loaded. Use it from one thread at a time.

    Args:
        model_path: The file that `device.training.backbone.ensure_exported` returned.
        num_threads: CPU threads that one picture may use.
    """

    def __init__(self, model_path: Path, num_threads: int = 1) -> None:
        self._path = model_path
        self._network = Network(model_path, num_threads)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the features of pictures.

        Args:
            images: uint8[n, 128, 128, 3], RGB.

        Returns:
            float32[n, 1280], the pooled features.

        Raises:
            ValueError: The pictures are of another size or dtype.
            OutOfOrder: A feature is not finite.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (INPUT_PX, INPUT_PX, 3):
            raise ValueError(
                f"Expected uint8 pictures of {INPUT_PX} px, got {images.dtype} {images.shape}."
            )
        features = np.empty((len(images), FEATURES), np.float32)
        for row, image in enumerate(images):
            batch = image[np.newaxis].astype(np.float32)
            features[row] = self._network.run(batch)
        if not all_finite(features):
            raise OutOfOrder(
                f"The frozen body in {self._path} gives features that are not finite.",
                todo="Copy it again from a machine where it works.",
            )
        return features


def embed_cached(
    embedder: Embedder,
    images: NDArray[np.uint8],
    content_ids: Sequence[str],
    cache: Path,
) -> NDArray[np.float32]:
    """Compute the features of a split's pictures, but for those in the split's cache file.

    The file then holds exactly these pictures, so features go when their picture goes. A file that
    is missing, damaged, or from another version of the body counts as empty.

    Args:
        embedder: The loaded body.
        images: uint8[n, 128, 128, 3], RGB.
        content_ids: n digests of content, in the order of the pictures.
        cache: The split's cache file, replaced in one step; its folder exists.

    Returns:
        float32[n, 1280], in the order of the pictures.

    Raises:
        ValueError: There are more or fewer digests than pictures.
    """
    if len(images) != len(content_ids):
        raise ValueError(f"{len(images)} pictures come with {len(content_ids)} content hashes.")
    known = _read(cache)
    missing = [row for row, content_id in enumerate(content_ids) if content_id not in known]
    fresh = embedder.embed(images[missing])
    found = dict(known)
    for row, feature in zip(missing, fresh, strict=True):
        found[content_ids[row]] = feature
    rows = [found[content_id] for content_id in content_ids]
    features = np.array(rows, np.float32).reshape(-1, FEATURES)
    if missing or known.keys() != set(content_ids):
        _write(cache, content_ids, features)
    return features


def _read(cache: Path) -> dict[str, NDArray[np.float32]]:
    try:
        # Never a pickle: whoever can write the file could run code.
        with np.load(cache, allow_pickle=False) as stored:
            version = str(stored["version"])
            ids = stored["ids"]
            features = stored["features"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    fits = features.dtype == np.float32 and features.shape == (ids.size, FEATURES)
    if version != BODY_VERSION or not fits or not all_finite(features):
        return {}
    return dict(zip(ids.tolist(), features, strict=True))


def _write(cache: Path, content_ids: Sequence[str], features: NDArray[np.float32]) -> None:
    """Replace a cache file in one step.

    Nothing is synced: a file that a power cut damages is computed again.
    """
    ids = np.array(content_ids, dtype=np.str_)
    with NamedTemporaryFile(dir=cache.parent, prefix=f".{cache.name}.", delete=False) as file:
        try:
            np.savez(file, version=np.array(BODY_VERSION), ids=ids, features=features)
            file.flush()
            Path(file.name).replace(cache)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
