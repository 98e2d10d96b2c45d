"""Captioned pictures from WebDataset tars: files of one stem are one example.

    000001.jpg  000001.txt  000001.json

A caption is the text file's, or `caption` of the JSON. The source is indexed once and then read at
random, so grain shuffles it by position and a batch is a function of (seed, step).
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from training.data.captions import Caption

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


class WebDatasetError(ValueError):
    """A tar is missing, or holds something else than captioned pictures."""


@dataclass(frozen=True)
class _Bytes:
    """Where a file's content lies in its tar."""

    tar: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.tar.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


class WebDatasetSource:
    """A grain data source of (picture, caption), cropped to a centred square of one size."""

    def __init__(self, folder: Path, *, side_px: int) -> None:
        """Indexes every tar of a folder, in the order of their names.

        Args:
            folder: With at least one uncompressed .tar.
            side_px: Side of the pictures.

        Raises:
            WebDatasetError: there is no tar, one cannot be read, or a picture has no caption.
        """
        self._side_px = side_px
        self._examples: list[tuple[str, _Bytes, _Bytes, bool]] = []
        tars = sorted(folder.glob("*.tar"))
        if not tars:
            raise WebDatasetError(f"expected WebDataset tars (*.tar) in {folder}, found none")
        for tar in tars:
            self._index(tar)
        if not self._examples:
            raise WebDatasetError(
                f"expected pictures ({', '.join(_PICTURES)}) in the tars of {folder}"
            )

    def _index(self, tar: Path) -> None:
        stems: dict[str, dict[str, _Bytes]] = {}
        try:
            with tarfile.open(tar, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        name = Path(member.name)
                        place = _Bytes(tar, member.offset_data, member.size)
                        stems.setdefault(str(name.with_suffix("")), {})[name.suffix.lower()] = place
        except tarfile.TarError as error:
            raise WebDatasetError(f"{tar} is no uncompressed tar: {error}") from error
        for stem, files in stems.items():
            picture = next((files[suffix] for suffix in _PICTURES if suffix in files), None)
            if picture is None:
                continue
            caption = files.get(".txt", files.get(".json"))
            if caption is None:
                raise WebDatasetError(f"{tar}: {stem} has no caption, expected {stem}.txt or .json")
            self._examples.append((f"{tar}: {stem}", picture, caption, ".txt" not in files))

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
        """Reads an example.

        Raises:
            WebDatasetError: its picture or caption cannot be read.
        """
        name, picture, _, _ = self._examples[index]
        try:
            image = _square(Image.open(io.BytesIO(picture.read())), self._side_px)
        except (UnidentifiedImageError, OSError) as error:
            raise WebDatasetError(f"{name}: the picture cannot be read: {error}") from error
        return image, self.caption(index)

    def caption(self, index: int) -> str:
        """Reads an example's caption alone.

        Raises:
            WebDatasetError: it cannot be read.
        """
        name, _, caption, is_json = self._examples[index]
        text = caption.read().decode()
        if is_json:
            try:
                text = json.loads(text)["caption"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise WebDatasetError(
                    f"{name}.json: expected a `caption`, got {error!r}"
                ) from error
        return text.strip()


class WebDatasetBatches:
    """Batches of captioned pictures: shuffled anew each epoch, every example once in it."""

    def __init__(self, source: WebDatasetSource, *, batch_size: int, seed: int) -> None:
        """Lays out the order.

        Args:
            source: The examples, in their high resolution.
            batch_size: Examples a step.
            seed: Of the order.
        """
        self._source, self._batch_size = source, batch_size
        self._endless = grain.MapDataset.source(source).seed(seed).shuffle().repeat()

    def captioned(self, step: int) -> tuple[UInt8[np.ndarray, "B h w 3"], list[str]]:
        """Returns the high-resolution pictures of a step and their captions."""
        first = step * self._batch_size
        examples = [self._endless[first + row] for row in range(self._batch_size)]
        return np.stack([image for image, _ in examples]), [text for _, text in examples]

    def images(self, step: int) -> UInt8[np.ndarray, "B h w 3"]:
        """Returns the high-resolution pictures of a step."""
        return self.captioned(step)[0]

    def captions(self, seed: int) -> Iterator[Caption]:
        """Yields captions without end, shuffled anew each epoch; nothing labels their nouns."""
        order = np.random.default_rng(seed)
        while True:
            for index in order.permutation(len(self._source)):
                yield Caption(text=self._source.caption(int(index)))

    @property
    def label_classes(self) -> Mapping[str, int]:
        """Returns no labels: what these captions' nouns say is not known."""
        return {}

    @property
    def subjects(self) -> Mapping[str, Sequence[str]]:
        """Returns no subjects: what these captions name is not known."""
        return {}


def _square(image: Image.Image, side_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """Crops the centred square and scales it; transparent pixels become white."""
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((side_px, side_px), Image.Resampling.LANCZOS))
