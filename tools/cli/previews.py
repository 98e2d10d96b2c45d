"""A picture as it forms, as files: every preview, one strip of all, an animation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from muse_client import GeneratedImage, Progress
from PIL import Image

from services.pictures.sheets import sheet_of_rows
from tools.cli.image_files import FORMATS

FRAME_MS, LAST_FRAME_MS = 120, 2000
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}


@dataclass(kw_only=True)
class Watcher:
    """Collects previews and writes what is wanted of them.

    Attributes:
        folder: Where each preview becomes a file.
        filmstrip: File of one strip of all, with their steps; a row for each picture.
        animation: File of the first picture as it forms: .gif or .webp.
    """

    folder: Path | None = None
    filmstrip: Path | None = None
    animation: Path | None = None
    _steps: list[Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, file, formats in (
            ("filmstrip", self.filmstrip, FORMATS),
            ("animate", self.animation, ANIMATIONS),
        ):
            if file is not None and file.suffix.lower() not in formats:
                raise ValueError(
                    f"{name}: expected a name that ends in {', '.join(formats)}, got {file}"
                )

    def add(self, step: Progress) -> None:
        """Takes a step; writes its preview if each is wanted as a file."""
        if step.preview is None:
            return
        self._steps.append(step)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = f"-{step.part}" if step.parts > 1 else ""
            name = f"{step.index}-{step.stage}{part}-{step.step:03}.png"
            step.preview.image.save(self.folder / name)

    def finish(self, pictures: Sequence[GeneratedImage]) -> list[Path]:
        """Writes strip and animation; returns the files.

        Args:
            pictures: The finished ones, in order.
        """
        written = []
        if self.filmstrip is not None and self._steps:
            _saved(_strip(_ordered(self._steps), pictures), self.filmstrip)
            written.append(self.filmstrip)
        if self.animation is not None and self._steps:
            self._animate(pictures[0], self.animation)
            written.append(self.animation)
        return written

    def _animate(self, picture: GeneratedImage, file: Path) -> None:
        steps = [step for step in _ordered(self._steps) if step.index == picture.index]
        previews = [step.preview.image for step in steps if step.preview is not None]
        frames = [_sized(image, _largest(steps)) for image in [*previews, picture.image]]
        file.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(
            file,
            ANIMATIONS[file.suffix.lower()],
            save_all=True,
            append_images=frames[1:],
            duration=[FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS],
            loop=0,
        )


def _ordered(steps: Sequence[Progress]) -> list[Progress]:
    """Returns steps by picture, then in the order they were taken within it."""
    return sorted(steps, key=lambda step: step.index)


def _largest(steps: Sequence[Progress]) -> tuple[int, int]:
    """Returns width and height of the largest preview; all are of one aspect."""
    return max(step.preview.image.size for step in steps if step.preview is not None)


def _sized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _strip(steps: Sequence[Progress], pictures: Sequence[GeneratedImage]) -> Image.Image:
    """Returns a row of previews for each picture, the finished one last, each with its step."""
    size = _largest(steps)
    rows = []
    for index, members in groupby(steps, key=lambda step: step.index):
        row = [
            (f"{step.stage} {step.step}/{step.total}", _sized(step.preview.image, size))
            for step in members
            if step.preview is not None
        ]
        for picture in pictures:
            if picture.index == index:
                row.append((f"seed {picture.seed}"[: size[0] // 6], _sized(picture.image, size)))
        rows.append(row)
    return sheet_of_rows(
        [[image for _, image in row] for row in rows],
        captions=[[caption for caption, _ in row] for row in rows],
    )


def _saved(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, FORMATS[file.suffix.lower()])
