"""`python -m training.evaluation edits`: has running servers edit drawn scenes, and reads them."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from cyclopts import Parameter
from muse_client import DEFAULT_ADDRESS, GeneratedImage, GenerateOptions, MuseClient
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from services.pictures.sheets import contact_sheet
from services.sampling import NO_FLAGS, SamplingFlags, given
from tools.cli.options import PLAIN_TEXT, Transport, sampling_options
from training.evaluation.detector import WORST_DISTANCE
from training.evaluation.detector_command import print_reliability
from training.evaluation.edits import (
    ATTRIBUTES,
    KINDS,
    Outcome,
    Pixels,
    draw_edit_cases,
    measure_inpaint,
    measure_mask_free,
    measure_outpaint,
    shares_of,
)
from training.evaluation.server import Server
from training.evaluation.shares import Share
from training.evaluation.testbed import open_testbed

console = Console()
Measured = TypeVar("Measured")


class ServerEditor:
    """Sends edits to an orchestrator and measures how long they take.

    Attributes:
        seconds: Of each request, by its kind.
    """

    def __init__(self, client: MuseClient, options: GenerateOptions | None = None) -> None:
        """Edits by a client.

        Args:
            client: Of the orchestrator.
            options: What every request says besides; nothing by default.
        """
        self._client, self._options = client, options or {}
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def generate(self, prompt: str, seed: int) -> Pixels:
        """Generates a new picture, to compare the time with."""
        begun = time.monotonic()
        return self._only("generate", begun, self._client.generate(prompt, **self._request(seed)))

    def inpaint(self, picture: Pixels, mask: np.ndarray, prompt: str, seed: int) -> Pixels:
        """Generates anew what the mask covers."""
        begun, marked = time.monotonic(), Image.fromarray(mask.astype(np.uint8) * 255)
        made = self._client.inpaint(Image.fromarray(picture), marked, prompt, **self._request(seed))
        return self._only("inpaint", begun, made)

    def outpaint(self, picture: Pixels, right_px: int, prompt: str, seed: int) -> Pixels:
        """Extends the picture to the right."""
        begun = time.monotonic()
        made = self._client.outpaint(
            Image.fromarray(picture), prompt, right_px=right_px, **self._request(seed)
        )
        return self._only("outpaint", begun, made)

    def edit(
        self, picture: Pixels, prompt: str, iterations: Sequence[int], seed: int
    ) -> Mapping[int, Pixels]:
        """Changes the picture without a mask."""
        begun = time.monotonic()
        made = self._client.mask_free_edit(
            Image.fromarray(picture),
            prompt,
            iterations=max(iterations),
            return_iterations=iterations,
            **self._request(seed),
        )
        self.seconds["edit"].append(time.monotonic() - begun)
        return {each.iteration or 0: _pixels(each) for each in made}

    def _request(self, seed: int) -> GenerateOptions:
        return {**self._options, "seed": seed}

    def _only(self, kind: str, begun: float, made: Sequence[GeneratedImage]) -> Pixels:
        self.seconds[kind].append(time.monotonic() - begun)
        (picture,) = made
        return _pixels(picture)


def _pixels(picture: GeneratedImage) -> Pixels:
    return np.asarray(picture.image.convert("RGB"))


def edits(
    *,
    data: Path,
    preset: str = "demo",
    server: Server = DEFAULT_ADDRESS,
    cases: int = 200,
    edit_cases: int | None = None,
    every: int = 25,
    flags: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS,
    seed: int = 0,
    worst_distance: float = WORST_DISTANCE,
    out: Path = Path("out/evaluation"),
    transport: Transport = PLAIN_TEXT,
) -> None:
    """Has running servers edit drawn scenes and reads the results.

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
    cases
        Inpaintings, and outpaintings.
    edit_cases
        Edits without a mask, of the background and again of the style; as many by default.
    every
        Iterations of such edits between two readings, up to 100.
    flags
        Sampling parameters of both transformers; the servers' defaults if not set.
    seed
        Of the scenes and the edits.
    worst_distance
        Of the detector: from a template, past which a region is not recognised.
    out
        Folder of the report and of a sheet of the first pictures, each beside what it was.
    """
    if not 7 <= every <= 100:
        raise ValueError(f"every: expected 7 to 100 iterations, got {every}")
    testbed = open_testbed(preset, data, worst_distance=worst_distance)
    iterations = sorted({*range(0, 100, every), 100})
    drawn = {
        kind: draw_edit_cases(
            kind, testbed, (edit_cases or cases) if kind in ATTRIBUTES else cases, seed=seed
        )
        for kind in KINDS
    }
    reliability = print_reliability(testbed)
    masked: dict[str, dict[str, Share]] = {}
    curves: dict[str, dict[int, dict[str, Share]]] = {}
    shown: list[Outcome] = []
    with MuseClient(server, tls=transport.tls()) as client:
        editor = ServerEditor(client, sampling_options(client, given(flags)))
        for kind, measure in (("inpaint", measure_inpaint), ("outpaint", measure_outpaint)):
            outcomes = _tracked(kind, measure(drawn[kind], testbed, editor), len(drawn[kind]))
            masked[kind] = shares_of(outcomes)
            shown += outcomes[:4]
        for attribute in ATTRIBUTES:
            measured = measure_mask_free(
                drawn[attribute], testbed, editor, attribute=attribute, iterations=iterations
            )
            courses = _tracked(attribute, measured, len(drawn[attribute]))
            curves[attribute] = {
                at: shares_of([course[at] for course in courses]) for at in iterations
            }
            shown += [course[iterations[-1]] for course in courses[:4]]
        for case in drawn["inpaint"][:10]:
            editor.generate(case.prompt, case.seed)
    seconds = {kind: float(np.median(each)) for kind, each in editor.seconds.items()}
    _print(masked, curves, seconds)
    report = {
        "seed": seed,
        "detector": reliability.as_json(),
        **{kind: _as_json(shares) for kind, shares in masked.items()},
        **{
            attribute: {at: _as_json(shares) for at, shares in curve.items()}
            for attribute, curve in curves.items()
        },
        "seconds": seconds,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "edits.json").write_text(json.dumps(report, indent=2) + "\n")
    sheet = contact_sheet([side for each in shown for side in _sides(each)], columns=8)
    sheet.save(out / "edits.png")
    console.print(f"{out / 'edits.json'} and {out / 'edits.png'}")


def _as_json(shares: Mapping[str, Share]) -> dict[str, object]:
    return {question: share.as_json() for question, share in shares.items()}


def _tracked(title: str, measured: Iterable[Measured], total: int) -> list[Measured]:
    return list(track(measured, title, total=total, console=console))


def _sides(outcome: Outcome) -> tuple[Pixels, Pixels]:
    """Returns a picture before and after, cut to its own size."""
    side = outcome.before.shape[1]
    return outcome.before, outcome.after[:, -side:]


def _print(
    masked: Mapping[str, Mapping[str, Share]],
    curves: Mapping[str, Mapping[int, Mapping[str, Share]]],
    seconds: Mapping[str, float],
) -> None:
    table = Table("edit", "cases", "question", "right")
    for kind, shares in masked.items():
        for question, share in shares.items():
            table.add_row(kind, str(share.total), question, str(share))
    console.print(table)
    for attribute, course in curves.items():
        curve = Table("iteration", *next(iter(course.values())), title=f"edit of the {attribute}")
        for at, shares in course.items():
            curve.add_row(str(at), *(str(share) for share in shares.values()))
        console.print(curve)
    medians = ", ".join(f"{kind} {value:.2f} s" for kind, value in seconds.items())
    console.print(f"median of a request: {medians}")
