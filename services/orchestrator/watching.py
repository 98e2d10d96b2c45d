"""A picture as it forms, as files: every preview, one strip of all, an animation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from services.orchestrator.client import Picture, Step

GAP_PX, CAPTION_PX = 4, 14
FRAME_MS, LAST_FRAME_MS = 120, 2000
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
STRIPS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


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
    _steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, file, formats in (
            ("filmstrip", self.filmstrip, STRIPS),
            ("animate", self.animation, ANIMATIONS),
        ):
            if file is not None and file.suffix.lower() not in formats:
                raise ValueError(
                    f"{name}: expected a name that ends in {', '.join(formats)}, got {file}"
                )

    def add(self, step: Step) -> None:
        """Takes a step; writes its preview if each is wanted as a file."""
        if step.preview is None:
            return
        self._steps.append(step)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = f"-{step.part}" if step.parts > 1 else ""
            name = f"{step.index}-{step.stage}{part}-{step.step:03}.png"
            step.preview.image.save(self.folder / name)

    def finish(self, pictures: Sequence[Picture]) -> list[Path]:
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

    def _animate(self, picture: Picture, file: Path) -> None:
        steps = [step for step in _ordered(self._steps) if step.index == picture.index]
        previews = [step.preview.image for step in steps if step.preview is not None]
        frames = [_sized(image, _side(steps)) for image in previews]
        last = picture.image.convert("RGB")
        if last.size == frames[-1].size:
            frames.append(last)
        file.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(
            file,
            ANIMATIONS[file.suffix.lower()],
            save_all=True,
            append_images=frames[1:],
            duration=[FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS],
            loop=0,
        )


def _ordered(steps: Sequence[Step]) -> list[Step]:
    """Returns steps by picture, then in the order they were taken within it."""
    return sorted(steps, key=lambda step: step.index)


def _side(steps: Sequence[Step]) -> int:
    return max(max(step.preview.image.size) for step in steps if step.preview is not None)


def _sized(image: Image.Image, side: int) -> Image.Image:
    return image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def _strip(steps: Sequence[Step], pictures: Sequence[Picture]) -> Image.Image:
    """Returns a row of previews for each picture, the finished one last, each with its step."""
    side = _side(steps)
    rows = []
    for index, members in groupby(steps, key=lambda step: step.index):
        row = [
            (f"{step.stage} {step.step}/{step.total}", _sized(step.preview.image, side))
            for step in members
            if step.preview is not None
        ]
        for picture in pictures:
            if picture.index == index:
                row.append((f"seed {picture.seed}"[: side // 6], _fitted(picture.image, side)))
        rows.append(row)
    columns = max(map(len, rows))
    width = columns * (side + GAP_PX) + GAP_PX
    height = len(rows) * (side + GAP_PX + CAPTION_PX) + GAP_PX
    strip = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(10)
    for at, row in enumerate(rows):
        top = GAP_PX + at * (side + GAP_PX + CAPTION_PX)
        for column, (caption, image) in enumerate(row):
            left = GAP_PX + column * (side + GAP_PX)
            strip.paste(image, (left, top))
            draw.text((left, top + side + 1), caption, fill="black", font=font)
    return strip


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Returns an image of any shape on a square of white."""
    square = Image.new("RGB", (side, side), "white")
    small = image.convert("RGB")
    small.thumbnail((side, side))
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


def _saved(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, STRIPS[file.suffix.lower()])
