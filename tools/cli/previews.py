"""Files of previews: every preview, a filmstrip of all, an animation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    _previews: list[tuple[Progress, Image.Image]] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_suffix("filmstrip", self.filmstrip)
        check_suffix("animate", self.animation, ANIMATIONS)

    def add(self, step: Progress) -> None:
        """Adds the preview of a step, and writes it into the folder."""
        if step.preview is None:
            return
        image = step.preview.image
        self._previews.append((step, image))
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = f"-{step.part}" if step.parts > 1 else ""
            name = f"{step.index}-{step.stage}{part}-{step.step:03}.png"
            image.save(self.folder / name)

    def finish(self, pictures: Sequence[GeneratedImage]) -> list[Path]:
        """Writes filmstrip and animation of finished images; returns the files written."""
        if not self._previews:
            return []
        files = [file for file in (self.filmstrip, self.animation) if file is not None]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        if self.filmstrip is not None:
            _strip(self._previews, pictures).save(self.filmstrip)
        if self.animation is not None:
            first = pictures[0]
            images = [image for step, image in self._previews if step.index == first.index]
            _animate(images, first, self.animation)
        return files


def _animate(previews: Sequence[Image.Image], picture: GeneratedImage, file: Path) -> None:
    size = max(image.size for image in previews)  # all have one aspect
    frames = [_sized(image, size) for image in [*previews, picture.image]]
    durations = [FRAME_MS] * len(previews) + [LAST_FRAME_MS]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _sized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _strip(
    previews: Sequence[tuple[Progress, Image.Image]], pictures: Sequence[GeneratedImage]
) -> Image.Image:
    """Returns a row of previews for each image, with their steps, the finished image last."""
    size = max(image.size for _, image in previews)  # all have one aspect
    rows, captions = [], []
    for index in sorted({step.index for step, _ in previews}):
        row = [
            (f"{step.stage} {step.step}/{step.total}", image)
            for step, image in previews
            if step.index == index
        ]
        done = [picture for picture in pictures if picture.index == index]
        row += [(f"seed {picture.seed}"[: size[0] // 6], picture.image) for picture in done]
        captions.append([caption for caption, _ in row])
        rows.append([_sized(image, size) for _, image in row])
    return sheet_of_rows(rows, captions=captions)
