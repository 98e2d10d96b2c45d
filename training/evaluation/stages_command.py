"""`python -m training.evaluation base` and `superres`: one transformer alone, read back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import track

from services.decoding.state import Sampling
from services.presets import preset as named_preset
from services.sampling import NO_FLAGS, SamplingFlags, given
from training.evaluation.detector import WORST_DISTANCE
from training.evaluation.detector_command import print_reliability
from training.evaluation.reports import write_report
from training.evaluation.scenes import GROUPS, PromptCase, draw_prompt_cases, score_all
from training.evaluation.stages import BaseAlone, SuperresAlone
from training.evaluation.testbed import Testbed, open_testbed

console = Console()


@dataclass(frozen=True, kw_only=True)
class StageFlags:
    """Flags of both commands.

    Attributes:
        data: Folder of sprites.
        checkpoints: Root of the text encoder and the tokenizers.
        checkpoint: Folder of the transformer, such as a run's export; that of the root by default.
        preset: System that it belongs to; it gives the board and the number of objects.
        objects: Objects of the vocabulary that prompts name, from its first, if not the preset's.
        prompts_per_group: Pictures of each group.
        group: Groups of prompts; all if none is named.
        seed: Of the prompts and the pictures.
        steps: Of a decode; the checkpoint's default if not set.
        worst_distance: Of the detector: from a template, past which a region is not recognised.
        sampling: Other sampling parameters; the checkpoint's defaults if not set.
        out: Folder of the report and of the sheet of all pictures.
    """

    data: Path
    checkpoints: Path
    checkpoint: Path | None = None
    preset: str = "demo"
    objects: int | None = None
    prompts_per_group: int = 20
    group: list[str] | None = None
    seed: int = 0
    steps: int | None = None
    worst_distance: float = WORST_DISTANCE
    sampling: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS
    out: Path = Path("out/evaluation")


Flags = Annotated[StageFlags, Parameter(name="*")]


def base(flags: Flags) -> None:
    """Generates low-resolution pictures with the base and the low-resolution tokenizer alone."""
    testbed, cases = _testbed_and_cases(flags)
    folder = flags.checkpoint or flags.checkpoints / "base"
    alone = BaseAlone(folder, flags.checkpoints, named_preset(flags.preset))
    pictures = alone.generate_all(cases, _chosen(alone.sampling, flags))
    title, file = f"The base alone, {folder}", flags.out / "base.json"
    _report(title, testbed, testbed.low_side_px, cases, pictures, file)


def superres(flags: Flags) -> None:
    """Generates pictures from the true low-resolution tokens of composed scenes."""
    testbed, cases = _testbed_and_cases(flags)
    folder = flags.checkpoint or flags.checkpoints / "superres"
    alone = SuperresAlone(folder, flags.checkpoints, named_preset(flags.preset))
    pictures = alone.generate_all(cases, _chosen(alone.sampling, flags), testbed)
    title, file = f"The super-resolution alone, {folder}", flags.out / "superres.json"
    _report(title, testbed, testbed.side_px, cases, pictures, file)


def _testbed_and_cases(flags: StageFlags) -> tuple[Testbed, list[PromptCase]]:
    testbed = open_testbed(
        flags.preset, flags.data, objects=flags.objects, worst_distance=flags.worst_distance
    )
    cases = draw_prompt_cases(
        testbed.vocabulary,
        testbed.board,
        flags.prompts_per_group,
        seed=flags.seed,
        groups=flags.group or tuple(GROUPS),
    )
    return testbed, cases


def _chosen(defaults: Sampling, flags: StageFlags) -> Sampling:
    """Returns the checkpoint's sampling parameters with those of the command line over them.

    It prints them: a checkpoint without sampling.json, as a run's unfinished one, has the paper's,
    with which a small model's pictures fall apart.
    """
    steps = defaults.steps if flags.steps is None else flags.steps
    chosen = replace(defaults, steps=steps, **given(flags.sampling))
    named = ", ".join(f"{name} {value:g}" for name, value in vars(chosen).items() if name != "seed")
    console.print(f"sampled with {named}", highlight=False, soft_wrap=True)
    return chosen


def _report(
    title: str,
    testbed: Testbed,
    side_px: int,
    cases: Sequence[PromptCase],
    pictures: Iterator[UInt8[np.ndarray, "h w 3"]],
    file: Path,
) -> None:
    reliability = print_reliability(testbed, side_px=side_px)
    generated = score_all(cases, pictures, testbed.detector)
    scored = list(track(generated, "generating", total=len(cases), console=console))
    write_report(title, scored, reliability, file)
