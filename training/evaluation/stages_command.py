"""`python -m training.evaluation base` and `superres`: one transformer alone, read back."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from training.evaluation.detector_command import print_reliability
from training.evaluation.reports import write_report
from training.evaluation.scenes import GROUPS, PromptCase, draw_prompt_cases, score_all
from training.evaluation.stages import BaseAlone, SuperresAlone
from training.evaluation.testbed import Testbed, open_testbed

console = Console()


def base(
    *,
    data: Path,
    checkpoints: Path,
    checkpoint: Path | None = None,
    preset: str = "demo",
    prompts_per_group: int = 20,
    group: list[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    flags: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS,
    out: Path = Path("out/evaluation"),
) -> None:
    """Generates low-resolution pictures with the base and the low-resolution tokenizer alone.

    Parameters
    ----------
    data
        Folder of sprites.
    checkpoints
        Root of the text encoder and the tokenizers.
    checkpoint
        Folder of the base, such as a run's export; `base` of the root by default.
    preset
        System that it belongs to; it gives the board and the objects.
    prompts_per_group
        Pictures of each group.
    group
        Groups of prompts; all if none is named.
    seed
        Of the prompts and the pictures.
    steps
        Of a decode; the checkpoint's default if not set.
    flags
        Other sampling parameters; the checkpoint's defaults if not set.
    out
        Folder of the report and of the sheet of all pictures.
    """
    testbed = open_testbed(preset, data)
    cases = _cases(testbed, prompts_per_group, group, seed)
    folder = checkpoint or checkpoints / "base"
    alone = BaseAlone(folder, checkpoints, named_preset(preset))
    sampling = _chosen(alone.sampling, steps, flags)
    pictures = alone.generate_all(cases, sampling)
    _report(
        f"The base alone, {folder}", testbed, testbed.low_side_px, cases, pictures,
        out / "base.json",
    )  # fmt: skip


def superres(
    *,
    data: Path,
    checkpoints: Path,
    checkpoint: Path | None = None,
    preset: str = "demo",
    prompts_per_group: int = 20,
    group: list[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    flags: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS,
    out: Path = Path("out/evaluation"),
) -> None:
    """Generates pictures from the true low-resolution tokens of composed scenes.

    Parameters
    ----------
    data
        Folder of sprites.
    checkpoints
        Root of the text encoder and the tokenizers.
    checkpoint
        Folder of the super-resolution, such as a run's export; `superres` of the root by default.
    preset
        System that it belongs to; it gives the board and the objects.
    prompts_per_group
        Pictures of each group.
    group
        Groups of prompts; all if none is named.
    seed
        Of the prompts and the pictures.
    steps
        Of a decode; the checkpoint's default if not set.
    flags
        Other sampling parameters; the checkpoint's defaults if not set.
    out
        Folder of the report and of the sheet of all pictures.
    """
    testbed = open_testbed(preset, data)
    cases = _cases(testbed, prompts_per_group, group, seed)
    folder = checkpoint or checkpoints / "superres"
    alone = SuperresAlone(folder, checkpoints, named_preset(preset))
    sampling = _chosen(alone.sampling, steps, flags)
    pictures = alone.generate_all(cases, sampling, testbed)
    _report(
        f"The super-resolution alone, {folder}", testbed, testbed.side_px, cases, pictures,
        out / "superres.json",
    )  # fmt: skip


def _cases(
    testbed: Testbed, per_group: int, groups: Sequence[str] | None, seed: int
) -> list[PromptCase]:
    return draw_prompt_cases(
        testbed.vocabulary, testbed.board, per_group, seed=seed, groups=groups or tuple(GROUPS)
    )


def _chosen(defaults: Sampling, steps: int | None, flags: SamplingFlags) -> Sampling:
    """Returns the checkpoint's sampling parameters with those of the command line over them."""
    return replace(defaults, steps=defaults.steps if steps is None else steps, **given(flags))


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
