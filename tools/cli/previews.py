"""Files of previews: every preview, a filmstrip of all, an animation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muse_client import GeneratedImage, Progress
from PIL import Image

from services.pictures.sheets import CAPTION_PX, GAP_PX, sheet_of_rows
from tools.cli.image_files import check_suffix, save_image, write_file

FRAME_MS, LAST_FRAME_MS = 120, 2000
ANIMATIONS = (".gif", ".webp")
# Along a side: what a JPEG or WebP file can have, and of a PNG what viewers open.
MOST_PX, MOST_PX_WEBP = 65_500, 16_383
MOST_PIXELS = 2**26  # of a filmstrip: 200 MB to lay it out


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
        """Adds the preview of a step, and writes it into the folder.

        Raises:
            RuntimeError: the file cannot be written.
        """
        if step.preview is None:
            return
        image = step.preview.image
        self._previews.append((step, image))
        if self.folder is not None:
            part = f"-{step.part}" if step.parts > 1 else ""
            name = f"{step.index}-{step.stage}{part}-{step.step:03}.png"
            write_file(self.folder / name, step.preview.png)

    def finish(self, pictures: Sequence[GeneratedImage]) -> list[Path]:
        """Writes filmstrip and animation of finished images; returns the files written.

        Raises:
            RuntimeError: a file cannot be written.
        """
        if not self._previews:
            return []
        images = [image for _, image in self._previews] + [each.image for each in pictures]
        files = [file for file in (self.filmstrip, self.animation) if file is not None]
        if self.filmstrip is not None:
            most = MOST_PX_WEBP if self.filmstrip.suffix.lower() == ".webp" else MOST_PX
            save_image(_strip(self._previews, pictures, most), images, self.filmstrip)
        if self.animation is not None:
            first = pictures[0]
            images = [image for step, image in self._previews if step.index == first.index]
            _animate(images, first, self.animation)
        return files


def _animate(previews: Sequence[Image.Image], picture: GeneratedImage, file: Path) -> None:
    size = max(image.size for image in previews)  # all have one aspect
    frames = [_sized(image, size) for image in [*previews, picture.image]]
    durations = [FRAME_MS] * len(previews) + [LAST_FRAME_MS]
    options = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0}
    save_image(frames[0], [picture.image], file, **options)


def _sized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _strip(
    previews: Sequence[tuple[Progress, Image.Image]],
    pictures: Sequence[GeneratedImage],
    most_px: int,
) -> Image.Image:
    """Returns the previews of each image with their steps, the finished image last.

    They are in one row, or in several if the sheet would be wider than most_px otherwise. Frames
    are smaller if it would still be too high, or have too many pixels.
    """
    size = max(image.size for _, image in previews)  # all have one aspect
    films = []
    for index in sorted({step.index for step, _ in previews}):
        film = [
            (f"{step.stage} {step.step}/{step.total}", image)
            for step, image in previews
            if step.index == index
        ]
        done = [picture for picture in pictures if picture.index == index]
        film += [(f"seed {picture.seed}"[: size[0] // 6], picture.image) for picture in done]
        films.append(film)
    longest = max(len(film) for film in films)
    while True:
        width, height = size[0] + GAP_PX, size[1] + GAP_PX + CAPTION_PX
        columns = min(longest, max(1, (most_px - GAP_PX) // width))
        rows = sum(math.ceil(len(film) / columns) for film in films)
        high_px = GAP_PX + rows * height
        if (high_px <= most_px and high_px * columns * width <= MOST_PIXELS) or size == (1, 1):
            break
        size = (max(1, size[0] * 9 // 10), max(1, size[1] * 9 // 10))
    frames = [
        film[start : start + columns] for film in films for start in range(0, len(film), columns)
    ]
    return sheet_of_rows(
        [[_sized(image, size) for _, image in row] for row in frames],
        captions=[[caption for caption, _ in row] for row in frames],
    )
