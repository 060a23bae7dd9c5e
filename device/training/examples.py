"""From picture folders to what a model looks at: pixels, or the features of the frozen body.

The child runs it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dataset import folders
from device.training.backbone import ensure_exported
from device.training.training import Examples
from device.vision.embedding import Embedder, embed_cached
from learning.architectures import Architecture
from shared.errors import DatasetError


class Pictures:
    """Reads splits, keeping decoded pictures and features on disk, and the loaded body in memory.

    Args:
        cache: The device's own folder for what is derived from its pictures.
        machine_cache: Folder for the exported body, shared by every device on the machine.
    """

    def __init__(self, cache: Path, machine_cache: Path) -> None:
        self._cache, self._machine_cache = cache, machine_cache
        self._embedder: Embedder | None = None
        self._repeated: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def repeated(self, root: Path, detector: str, client: str) -> list[str]:
        """Say which test pictures are learned from as well; looked at again when a file has
        changed.

        Returns:
            "train/animal/1.jpg = test/animal/7.jpg" and so on; empty also where there is no test
            split yet.
        """
        folder = root / detector / client
        files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
        listing = hash(tuple((path, status.st_size, status.st_mtime_ns) for path, status in files))
        if self._repeated.get((detector, client), (None, []))[0] != listing:
            try:
                pairs = folders.repeated(root, detector, client)
            except DatasetError:
                pairs = ()
            said = [" = ".join("/".join(path.parts[2:]) for path in pair) for pair in pairs]
            self._repeated[detector, client] = listing, said
        return self._repeated[detector, client][1]

    def load(
        self, architecture: Architecture, root: Path, detector: str, client: str, split: str
    ) -> tuple[Examples, dict[str, int]]:
        """Load one split as inputs of an architecture, and count what was left out, by reason.

        Raises:
            DatasetError: The split has no usable pictures of a class.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        loaded = folders.load(
            root, detector, client, split, architecture.input_px, cache=self._cache
        )
        left_out = dict(Counter(file.reason for file in loaded.left_out))
        files = tuple(zip(loaded.paths, loaded.content_ids, strict=True))
        kept = self._cache / f"features-{detector}-{client}-{split}.npz"

        def embed(images: NDArray[Any]) -> NDArray[Any]:
            return embed_cached(self._body(), images, loaded.content_ids, kept)

        inputs = architecture.inputs_of(loaded.images, embed)
        return Examples(inputs, loaded.labels, files), left_out

    def _body(self) -> Embedder:
        if self._embedder is None:
            self._machine_cache.mkdir(parents=True, exist_ok=True)
            self._embedder = Embedder(ensure_exported(self._machine_cache))
        return self._embedder
