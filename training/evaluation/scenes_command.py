"""`python -m training.evaluation scenes` and `sampling`: pictures of running servers, read back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from jaxtyping import UInt8
from muse_client import DEFAULT_ADDRESS, MuseClient
from rich.console import Console
from rich.progress import track

from services.sampling import NO_FLAGS, SamplingFlags, given
from tools.cli.options import PLAIN_TEXT, Transport, sampling_options
from training.evaluation.detector import WORST_DISTANCE
from training.evaluation.detector_command import print_reliability
from training.evaluation.reports import write_report
from training.evaluation.sampling_search import GROUPS as SEARCHED_GROUPS
from training.evaluation.sampling_search import search
from training.evaluation.scenes import GROUPS, PromptCase, draw_prompt_cases, score_all
from training.evaluation.server import Server, generate_all
from training.evaluation.testbed import open_testbed

console = Console()


def scenes(
    *,
    data: Path,
    preset: str = "demo",
    server: Server = DEFAULT_ADDRESS,
    prompts_per_group: int = 20,
    group: list[str] | None = None,
    seed: int = 0,
    flags: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS,
    steps: int | None = None,
    superres_steps: int | None = None,
    worst_distance: list[float] | None = None,
    out: Path = Path("out/evaluation"),
    transport: Transport = PLAIN_TEXT,
) -> None:
    """Generates through the servers and reads the pictures back; the detector itself first.

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
    prompts_per_group
        Pictures of each group.
    group
        Groups of prompts; all if none is named.
    seed
        Of the prompts and the pictures.
    flags
        Sampling parameters of both transformers; the servers' defaults if not set.
    steps
        Of the base; the servers' default if not set.
    superres_steps
        Of the super-resolution; the servers' default if not set.
    worst_distance
        Of the detector: from a template, past which a region is not recognised; by several the same
        pictures are read with each.
    out
        Folder of the reports and of the sheet of all pictures.
    """
    testbed = open_testbed(preset, data)
    cases = draw_prompt_cases(
        testbed.vocabulary,
        testbed.board,
        prompts_per_group,
        seed=seed,
        groups=group or tuple(GROUPS),
    )
    limits = worst_distance or [testbed.worst_distance]
    reliable = {limit: print_reliability(testbed, worst_distance=limit) for limit in limits}
    with MuseClient(server, tls=transport.tls()) as client:
        options = sampling_options(client, given(flags), steps=steps, superres_steps=superres_steps)
        generated = generate_all(client, cases, options)
        pictures = list(track(generated, "generating", total=len(cases), console=console))
    for limit, reliability in reliable.items():
        title, name = f"Pictures of {server}", "scenes"
        if len(reliable) > 1:
            title, name = f"{title}, worst distance {limit:g}", f"scenes-{limit:g}"
        read = score_all(cases, pictures, testbed.detector, worst_distance=limit)
        scored = list(track(read, "reading", total=len(cases), console=console))
        write_report(title, scored, reliability, out / f"{name}.json")


def search_sampling(
    *,
    data: Path,
    preset: str = "demo",
    server: Server = DEFAULT_ADDRESS,
    prompts_per_group: int = 16,
    seed: int = 100,
    guidance_scale: float = 1.5,
    temperature: float = 0.7,
    choice_temperature: float = 2.0,
    worst_distance: float = WORST_DISTANCE,
    transport: Transport = PLAIN_TEXT,
) -> None:
    """Searches the sampling parameters of both transformers that give the best pictures.

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
    prompts_per_group
        Pictures of each group and value.
    seed
        Of the prompts and the pictures; another than that of `scenes`.
    guidance_scale
        To begin with.
    temperature
        To begin with.
    choice_temperature
        To begin with.
    worst_distance
        Of the detector: from a template, past which a region is not recognised.
    """
    testbed = open_testbed(preset, data, worst_distance=worst_distance)
    cases = draw_prompt_cases(
        testbed.vocabulary, testbed.board, prompts_per_group, seed=seed, groups=SEARCHED_GROUPS
    )
    start = {
        "guidance_scale": guidance_scale,
        "temperature": temperature,
        "choice_temperature": choice_temperature,
    }
    trials = []
    with MuseClient(server, tls=transport.tls()) as client:

        def generate(
            chosen: Mapping[str, float], cases: Sequence[PromptCase]
        ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
            return generate_all(client, cases, sampling_options(client, chosen))

        for trial in search(start, cases, generate, testbed.detector):
            trials.append(trial)
            console.print(
                f"{dict(trial.parameters)}: all right {trial.all_right}, objects {trial.objects}"
            )
    best = max(trials, key=lambda trial: trial.merit)
    console.print(f"best of {len(cases)} pictures each: {json.dumps(dict(best.parameters))}")
