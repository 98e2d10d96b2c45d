"""Files of previews: every preview, a filmstrip of all, an animation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from muse_client import GeneratedImage, Progress
from PIL import Image

from services.pictures.sheets import sheet_of_rows
from tools.cli.image_files import check_suffix

FRAME_MS, LAST_FRAME_MS = 120, 2000
ANIMATIONS = (".gif", ".webp")


@dataclass(kw_only=True)
class PreviewFiles:
    """Collects the previews of a request and writes files of them.

    Attributes:
        folder: Folder to write every preview into; None for none.
        filmstrip: File with a row of previews, and their steps, for each image; None for none.
        animation: File of an animation of the first image's previews: .gif or .webp; None for none.
    """

    folder: Path | None = None
    filmstrip: Path | None = None
    animation: Path | None = None
    _steps: list[Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_suffix("filmstrip", self.filmstrip)
        check_suffix("animate", self.animation, ANIMATIONS)

    def add(self, step: Progress) -> None:
        """Adds the preview of a step, and writes it into the folder."""
        if step.preview is None:
            return
        self._steps.append(step)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = f"-{step.part}" if step.parts > 1 else ""
            name = f"{step.index}-{step.stage}{part}-{step.step:03}.png"
            step.preview.image.save(self.folder / name)

    def finish(self, pictures: Sequence[GeneratedImage]) -> list[Path]:
        """Writes filmstrip and animation; returns the files written.

        Args:
            pictures: Finished images, in order.
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
            save_all=True,
            append_images=frames[1:],
            duration=[FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS],
            loop=0,
        )


def _ordered(steps: Sequence[Progress]) -> list[Progress]:
    """Returns steps grouped by image, each group in order of time."""
    return sorted(steps, key=lambda step: step.index)


def _largest(steps: Sequence[Progress]) -> tuple[int, int]:
    """Returns width and height of the largest preview; all have one aspect."""
    return max(step.preview.image.size for step in steps if step.preview is not None)


def _sized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _strip(steps: Sequence[Progress], pictures: Sequence[GeneratedImage]) -> Image.Image:
    """Returns a row of previews for each image, with their steps, the finished image last."""
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
    image.save(file)
