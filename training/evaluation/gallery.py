"""`python -m training.evaluation gallery`: writes a page of pictures that running servers make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from muse_client import DEFAULT_ADDRESS, GeneratedImage, MuseClient, Progress, sampling
from PIL import Image

from services.pictures.sheets import sheet_of_rows
from tools.cli.options import PLAIN_TEXT, Transport
from tools.cli.previews import PreviewFiles
from training.evaluation.edits import EditCase, draw_edit_cases, mask_of, picture_of
from training.evaluation.server import Server
from training.evaluation.testbed import Testbed, open_testbed

KEPT = (0, 10, 25, 50, 75, 100)
EDIT_GUIDANCE = 1.75  # the paper's 4 changes more of the demo's scenes than was asked for


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
    preset: str = "demo",
    server: Server = DEFAULT_ADDRESS,
    pairs: int = 3,
    seed: int = 0,
    out: Path = Path("docs"),
    transport: Transport = PLAIN_TEXT,
) -> None:
    """Writes gallery.md and its pictures: a filmstrip, and every edit before and after.

    Nothing is chosen: these are the first cases that the seed draws.

    Parameters
    ----------
    data
        Folder of sprites.
    preset
        System that the servers run; it gives the board and the objects.
    server
        Address of the orchestrator, HOST:PORT.
    transport
        TLS of the calls; plain text by default.
    pairs
        Edits of each kind.
    seed
        Of the scenes, the words and the pictures.
    out
        Folder to write into.
    """
    testbed = open_testbed(preset, data)
    folder = out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    with MuseClient(server, tls=transport.tls()) as client:
        entries = [_forming(client, testbed, seed, folder)]
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
            cases = draw_edit_cases(kind, testbed, pairs, seed=seed)
            rows = [row(client, testbed, case) for case in cases]
            name = f"{row.__name__.strip('_')}-{kind}.webp"
            sheet_of_rows(rows).save(folder / name, quality=90)
            words = "; ".join(case.prompt for case in cases) if row is not _varied else ""
            entries.append(Entry(file=name, title=title, words=words))
    page = out / "gallery.md"
    page.write_text(page_of(entries, preset, pairs, seed))
    print(f"{page} and {len(entries)} pictures in {folder}")


def _forming(client: MuseClient, testbed: Testbed, seed: int, folder: Path) -> Entry:
    case = draw_edit_cases("inpaint", testbed, 1, seed=seed)[0]
    file = folder / "forming.webp"
    previews = PreviewFiles(filmstrip=file)
    pictures: list[GeneratedImage] = []
    for event in client.events(case.prompt, seed=case.seed, preview_every=2):
        if isinstance(event, Progress):
            previews.add(event)
        elif isinstance(event, GeneratedImage):
            pictures.append(event)
    previews.finish(pictures)
    return Entry(file=file.name, title="A picture as it forms", words=case.prompt)


def _inpainted(client: MuseClient, testbed: Testbed, case: EditCase) -> list[Image.Image]:
    before, mask = _before(testbed, case), mask_of(case.wanted.placed[1], testbed)
    shown = np.where(mask[..., None], np.uint8(128), np.asarray(before))
    marked = Image.fromarray(mask.astype(np.uint8) * 255)
    (after,) = client.inpaint(before, marked, case.prompt, seed=case.seed)
    return [before, Image.fromarray(shown), after.image]


def _outpainted(client: MuseClient, testbed: Testbed, case: EditCase) -> list[Image.Image]:
    before = _before(testbed, case)
    (after,) = client.outpaint(before, case.prompt, right_px=testbed.side_px // 2, seed=case.seed)
    return [before, after.image]


def _edited(client: MuseClient, testbed: Testbed, case: EditCase) -> list[Image.Image]:
    before = _before(testbed, case)
    parameters = sampling(guidance_scale=EDIT_GUIDANCE)
    made = client.mask_free_edit(
        before,
        case.prompt,
        return_iterations=KEPT,
        seed=case.seed,
        base=parameters,
        superres=parameters,
    )
    return [before, *(each.image for each in made)]


def _varied(client: MuseClient, testbed: Testbed, case: EditCase) -> list[Image.Image]:
    before = _before(testbed, case)
    made = [client.vary(before, strength=s, seed=case.seed)[0].image for s in (0.3, 0.5, 0.7)]
    return [before, *made]


def _before(testbed: Testbed, case: EditCase) -> Image.Image:
    return Image.fromarray(picture_of(case.scene, testbed))


def page_of(entries: Sequence[Entry], preset: str, pairs: int, seed: int) -> str:
    """Returns the page."""
    lines = [
        "# Gallery",
        "",
        f"Made by `python -m training.evaluation gallery --preset {preset} --data $DATA` from",
        f"servers of that preset's checkpoint: the first {pairs} cases of each kind that",
        f"seed {seed} draws. Under a picture stand its prompts, in order.",
        "",
    ]
    for entry in entries:
        lines += [f"## {entry.title}", "", f"![{entry.title}](gallery/{entry.file})", ""]
        if entry.words:
            lines += [entry.words, ""]
    return "\n".join(lines[:-1]) + "\n"
