"""Options of every command that paints."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from services.sampling import NO_FLAGS, SamplingFlags, given

if TYPE_CHECKING:
    from muse_client import GenerateOptions


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """Options of every command that paints.

    Attributes:
        negative_prompt: What the pictures must not show.
        seed: Of the first picture, 0 to 2^64 - 1; picture i has seed + i. Drawn at random by
            default.
        count: Pictures, 1 to 16.
        best_of: Candidates to paint, of which the best are written, best first, up to 16; needs an
            orchestrator with a scorer.
        steps: Decoding steps of the base, 1 to 256.
        superres_steps: Decoding steps of the super-resolution, 1 to 256.
        sampling: Sampling parameters of both transformers.
        out: File to write: .png, .jpg or .webp. Several pictures get numbers, and a sheet of all.
        server: Address of an orchestrator, HOST:PORT.
        checkpoints: What the servers serve that are started for this call.
        preview_every: Steps after which to look at a picture under way, 1 to 256; every one by
            default, if any of the three files below is wanted.
        preview_dir: Folder to write each look into.
        filmstrip: File of one strip of all looks with their steps: .png, .jpg or .webp.
        animate: File of the first picture as it forms: .gif or .webp.
        trace: Draw where the time of each picture went.
        trace_html: File of the same as a page: .html.
    """

    negative_prompt: str = ""
    seed: int | None = None
    count: int = 1
    best_of: int = 0
    steps: int | None = None
    superres_steps: int | None = None
    sampling: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS
    out: Path = Path("out/muse.png")
    server: str | None = None
    checkpoints: Path = Path("checkpoints/demo")
    preview_every: int | None = None
    preview_dir: Path | None = None
    filmstrip: Path | None = None
    animate: Path | None = None
    trace: bool = False
    trace_html: Path | None = None

    def generate_options(self) -> "GenerateOptions":
        """Returns those that the request carries."""
        from muse_client import sampling

        both = given(self.sampling)
        watched = any((self.preview_dir, self.filmstrip, self.animate))
        every = self.preview_every if self.preview_every is not None else int(watched)
        return {
            "preview_every": every,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "count": self.count,
            "best_of": self.best_of,
            "base": sampling(steps=self.steps, **both),
            "superres": sampling(steps=self.superres_steps, **both),
        }


DEFAULTS = CommandOptions()
