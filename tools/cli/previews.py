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
    """Collects the previews of a request and writes files of them: each, all in rows, moving."""

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
        """Writes filmstrip and animation of finished images; returns the files written."""
        steps = sorted(self._steps, key=lambda step: step.index)  # each image's in order of time
        files = [file for file in (self.filmstrip, self.animation) if file is not None and steps]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        if steps and self.filmstrip is not None:
            _strip(steps, pictures).save(self.filmstrip)
        if steps and self.animation is not None:
            _animate(
                [each for each in steps if each.index == pictures[0].index],
                pictures[0],
                self.animation,
            )
        return files


def _animate(steps: Sequence[Progress], picture: GeneratedImage, file: Path) -> None:
    previews = [step.preview.image for step in steps if step.preview is not None]
    frames = [_sized(image, _largest(steps)) for image in [*previews, picture.image]]
    durations = [FRAME_MS] * len(previews) + [LAST_FRAME_MS]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _largest(steps: Sequence[Progress]) -> tuple[int, int]:
    """Returns width and height of the largest preview; all have one aspect."""
    return max(step.preview.image.size for step in steps if step.preview is not None)


def _sized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _strip(steps: Sequence[Progress], pictures: Sequence[GeneratedImage]) -> Image.Image:
    """Returns a row of previews for each image, with their steps, the finished image last."""
    size = _largest(steps)
    rows, captions = [], []
    for index, members in groupby(steps, key=lambda step: step.index):
        row = [
            (f"{step.stage} {step.step}/{step.total}", step.preview.image)
            for step in members
            if step.preview is not None
        ]
        done = [picture for picture in pictures if picture.index == index]
        row += [(f"seed {picture.seed}"[: size[0] // 6], picture.image) for picture in done]
        captions.append([caption for caption, _ in row])
        rows.append([_sized(image, size) for _, image in row])
    return sheet_of_rows(rows, captions=captions)
