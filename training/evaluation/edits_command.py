"""`python -m training.evaluation edits`: has running servers edit drawn scenes, and reads them."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from muse_client import DEFAULT_ADDRESS, GeneratedImage, GenerateOptions, MuseClient, sampling
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from training.data.sprites import load_sprites
from training.evaluation.detector import Detector
from training.evaluation.edits import (
    ATTRIBUTES,
    KINDS,
    Outcome,
    Pixels,
    draw_cases,
    measure_inpaint,
    measure_mask_free,
    measure_outpaint,
    shares_of,
)
from training.pictures import contact_sheet

console = Console()
Measured = TypeVar("Measured")


class ServerEditor:
    """Asks an orchestrator, and remembers how long it took.

    Attributes:
        seconds: Of each request, by its kind.
    """

    def __init__(self, client: MuseClient, knobs: GenerateOptions | None = None) -> None:
        """Edits by a client.

        Args:
            client: Of the orchestrator.
            knobs: What every request says besides; nothing by default.
        """
        self._client, self._knobs = client, knobs or {}
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def generate(self, prompt: str, seed: int) -> Pixels:
        """Paints a new picture, to compare the time with."""
        begun = time.monotonic()
        return self._only("generate", begun, self._client.generate(prompt, **self._wanted(seed)))

    def inpaint(self, picture: Pixels, mask: np.ndarray, prompt: str, seed: int) -> Pixels:
        """Repaints what the mask covers."""
        begun, marked = time.monotonic(), Image.fromarray(mask.astype(np.uint8) * 255)
        made = self._client.inpaint(Image.fromarray(picture), marked, prompt, **self._wanted(seed))
        return self._only("inpaint", begun, made)

    def outpaint(self, picture: Pixels, right_px: int, prompt: str, seed: int) -> Pixels:
        """Extends the picture to the right."""
        begun = time.monotonic()
        made = self._client.outpaint(
            Image.fromarray(picture), prompt, right_px=right_px, **self._wanted(seed)
        )
        return self._only("outpaint", begun, made)

    def edit(
        self, picture: Pixels, prompt: str, keep: Sequence[int], seed: int
    ) -> Mapping[int, Pixels]:
        """Changes the picture without a mask."""
        begun = time.monotonic()
        made = self._client.mask_free_edit(
            Image.fromarray(picture),
            prompt,
            iterations=max(keep),
            return_iterations=keep,
            **self._wanted(seed),
        )
        self.seconds["edit"].append(time.monotonic() - begun)
        return {each.iteration or 0: _pixels(each) for each in made}

    def _wanted(self, seed: int) -> GenerateOptions:
        return {**self._knobs, "seed": seed}

    def _only(self, kind: str, begun: float, made: Sequence[GeneratedImage]) -> Pixels:
        self.seconds[kind].append(time.monotonic() - begun)
        (picture,) = made
        return _pixels(picture)


def _pixels(picture: GeneratedImage) -> Pixels:
    return np.asarray(picture.image.convert("RGB"))


def edits(
    *,
    data: Path,
    server: str = DEFAULT_ADDRESS,
    cases: int = 200,
    edit_cases: int | None = None,
    every: int = 25,
    guidance: float | None = None,
    seed: int = 0,
    out: Path = Path("out/evaluation"),
) -> None:
    """Has running servers edit drawn scenes and reads the results.

    Parameters
    ----------
    data
        Folder of sprites.
    server
        Address of the orchestrator, HOST:PORT.
    cases
        Inpaintings, and outpaintings.
    edit_cases
        Edits without a mask, of the background and again of the style; as many by default.
    every
        Iterations of such edits between two looks, up to 100.
    guidance
        Of both transformers; the servers' default if not set.
    seed
        Of the scenes and the edits.
    out
        Folder of the report and of a sheet of the first pictures, each beside what it was.
    """
    if not 7 <= every <= 100:
        raise ValueError(f"every: expected 7 to 100 iterations, got {every}")
    sprites = load_sprites(data)
    detector = Detector(sprites)
    keep = sorted({*range(0, 100, every), 100})
    drawn = {
        kind: draw_cases(
            kind, sprites, (edit_cases or cases) if kind in ATTRIBUTES else cases, seed=seed
        )
        for kind in KINDS
    }
    report: dict[str, Any] = {"seed": seed, "cases": {kind: len(drawn[kind]) for kind in KINDS}}
    shown: list[Outcome] = []
    with MuseClient(server) as client:
        knobs = sampling(guidance=guidance)
        editor = ServerEditor(client, {"base": knobs, "superres": knobs})
        for kind, measure in (("inpaint", measure_inpaint), ("outpaint", measure_outpaint)):
            outcomes = _tracked(
                kind, measure(drawn[kind], sprites, editor, detector), len(drawn[kind])
            )
            report[kind] = shares_of(outcomes)
            shown += outcomes[:4]
        for attribute in ATTRIBUTES:
            measured = measure_mask_free(
                drawn[attribute], sprites, editor, detector, attribute=attribute, keep=keep
            )
            courses = _tracked(attribute, measured, len(drawn[attribute]))
            report[attribute] = {at: shares_of([course[at] for course in courses]) for at in keep}
            shown += [course[keep[-1]] for course in courses[:4]]
        for case in drawn["inpaint"][:10]:
            editor.generate(case.prompt, case.seed)
    report["seconds"] = {kind: float(np.median(each)) for kind, each in editor.seconds.items()}
    _print(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "edits.json").write_text(json.dumps(report, indent=2) + "\n")
    sheet = contact_sheet([side for each in shown for side in _sides(each)], columns=8)
    sheet.save(out / "edits.png")
    console.print(f"{out / 'edits.json'} and {out / 'edits.png'}")


def _tracked(title: str, measured: Iterable[Measured], total: int) -> list[Measured]:
    return list(track(measured, title, total=total, console=console))


def _sides(outcome: Outcome) -> tuple[Pixels, Pixels]:
    """Returns a picture before and after, cut to its own size."""
    side = outcome.before.shape[1]
    return outcome.before, outcome.after[:, -side:]


def _print(report: Mapping[str, Any]) -> None:
    table = Table("edit", "cases", "question", "right")
    for kind in ("inpaint", "outpaint"):
        for question, share in report[kind].items():
            table.add_row(kind, str(report["cases"][kind]), question, f"{share:.1%}")
    console.print(table)
    for attribute in ATTRIBUTES:
        course = report[attribute]
        curve = Table("iteration", *next(iter(course.values())), title=f"edit of the {attribute}")
        for at, shares in course.items():
            curve.add_row(str(at), *(f"{share:.1%}" for share in shares.values()))
        console.print(curve)
    seconds = ", ".join(f"{kind} {value:.2f} s" for kind, value in report["seconds"].items())
    console.print(f"median of a request: {seconds}")
