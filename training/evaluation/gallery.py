"""`python -m training.evaluation gallery`: writes a page of pictures that running servers make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from muse_client import DEFAULT_ADDRESS, GeneratedImage, MuseClient, Progress, sampling
from PIL import Image

from tools.cli.previews import Watcher
from training.data.scenes import render
from training.data.sprites import SpriteSet, load_sprites
from training.evaluation.edits import SIDE_PX, Case, draw_cases, mask_of

KEPT = (0, 10, 25, 50, 75, 100)
EDIT_GUIDANCE = 1.75  # the paper's 4 changes more of the demo's scenes than was asked for
GAP_PX = 4


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of the page and what stands under it.

    Attributes:
        file: Name of the picture.
        title: Of the entry.
        words: What it shows.
    """

    file: str
    title: str
    words: str


def gallery(
    *,
    data: Path,
    server: str = DEFAULT_ADDRESS,
    pairs: int = 3,
    seed: int = 0,
    out: Path = Path("docs"),
) -> None:
    """Writes gallery.md and its pictures: a filmstrip, and every edit before and after.

    Nothing is chosen: these are the first cases that the seed draws.

    Parameters
    ----------
    data
        Folder of sprites.
    server
        Address of the orchestrator, HOST:PORT.
    pairs
        Edits of each kind.
    seed
        Of the scenes, the words and the pictures.
    out
        Folder to write into.
    """
    sprites = load_sprites(data)
    folder = out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    with MuseClient(server) as client:
        entries = [_forming(client, sprites, seed, folder)]
        for kind, title, row in (
            ("inpaint", "Inpainting: before, what is masked, after", _inpainted),
            ("outpaint", "Outpainting by half a picture to the right: before, after", _outpainted),
            (
                "background",
                f"Edit without a mask, guidance {EDIT_GUIDANCE}: before, after {KEPT} iterations",
                _edited,
            ),
            (
                "style",
                f"Edit of the style, guidance {EDIT_GUIDANCE}: before, after {KEPT} iterations",
                _edited,
            ),
            (
                "inpaint",
                "Variations without a prompt, strength 0.3, 0.5, 0.7: before, after",
                _varied,
            ),
        ):
            cases = draw_cases(kind, sprites, pairs, seed=seed)
            rows = [row(client, sprites, case) for case in cases]
            name = f"{row.__name__.strip('_')}-{kind}.webp"
            rows_of(rows).save(folder / name, quality=90)
            words = "; ".join(case.prompt for case in cases) if row is not _varied else ""
            entries.append(Entry(file=name, title=title, words=words))
    page = out / "gallery.md"
    page.write_text(page_of(entries, pairs, seed))
    print(f"{page} and {len(entries)} pictures in {folder}")


def _forming(client: MuseClient, sprites: SpriteSet, seed: int, folder: Path) -> Entry:
    case = draw_cases("inpaint", sprites, 1, seed=seed)[0]
    file = folder / "forming.webp"
    watcher = Watcher(filmstrip=file)
    pictures: list[GeneratedImage] = []
    for event in client.events(case.prompt, seed=case.seed, preview_every=2):
        if isinstance(event, Progress):
            watcher.add(event)
        elif isinstance(event, GeneratedImage):
            pictures.append(event)
    watcher.finish(pictures)
    return Entry(file=file.name, title="A picture as it forms", words=case.prompt)


def _inpainted(client: MuseClient, sprites: SpriteSet, case: Case) -> list[Image.Image]:
    before, mask = _before(sprites, case), mask_of(case.wanted.placed[1])
    shown = np.where(mask[..., None], np.uint8(128), np.asarray(before))
    marked = Image.fromarray(mask.astype(np.uint8) * 255)
    (after,) = client.inpaint(before, marked, case.prompt, seed=case.seed)
    return [before, Image.fromarray(shown), after.image]


def _outpainted(client: MuseClient, sprites: SpriteSet, case: Case) -> list[Image.Image]:
    before = _before(sprites, case)
    (after,) = client.outpaint(before, case.prompt, right_px=SIDE_PX // 2, seed=case.seed)
    return [before, after.image]


def _edited(client: MuseClient, sprites: SpriteSet, case: Case) -> list[Image.Image]:
    before = _before(sprites, case)
    knobs = sampling(guidance=EDIT_GUIDANCE)
    made = client.mask_free_edit(
        before, case.prompt, return_iterations=KEPT, seed=case.seed, base=knobs, superres=knobs
    )
    return [before, *(each.image for each in made)]


def _varied(client: MuseClient, sprites: SpriteSet, case: Case) -> list[Image.Image]:
    before = _before(sprites, case)
    made = [client.vary(before, strength=s, seed=case.seed)[0].image for s in (0.3, 0.5, 0.7)]
    return [before, *made]


def _before(sprites: SpriteSet, case: Case) -> Image.Image:
    return Image.fromarray(render(case.scene, sprites, SIDE_PX))


def rows_of(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Lays rows of pictures of one height out below one another, on white."""
    widths = [sum(image.width + GAP_PX for image in row) + GAP_PX for row in rows]
    height = sum(row[0].height + GAP_PX for row in rows) + GAP_PX
    sheet = Image.new("RGB", (max(widths), height), "white")
    top = GAP_PX
    for row in rows:
        left = GAP_PX
        for image in row:
            sheet.paste(image.convert("RGB"), (left, top))
            left += image.width + GAP_PX
        top += row[0].height + GAP_PX
    return sheet


def page_of(entries: Sequence[Entry], pairs: int, seed: int) -> str:
    """Returns the page."""
    lines = [
        "# Gallery",
        "",
        "Made by `python -m training.evaluation gallery --data $DATA` from servers that run with",
        f"`checkpoints/demo`: the first {pairs} cases of each kind that seed {seed} draws.",
        "Under a picture stand its prompts, in order.",
        "",
    ]
    for entry in entries:
        lines += [f"## {entry.title}", "", f"![{entry.title}](gallery/{entry.file})", ""]
        if entry.words:
            lines += [entry.words, ""]
    return "\n".join(lines[:-1]) + "\n"
