"""The command `muse bench`; it imports its modules when called, so that `muse --help` is fast."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from services.stages import ORCHESTRATOR_PORT, StageName
from tools.cli.options import PLAIN_TEXT, Transport

if TYPE_CHECKING:
    from tools.bench.summary import Summary


def bench(
    *,
    stage: StageName | Literal["whole"] = "whole",
    rate: Annotated[list[float] | None, Parameter(negative=())] = None,
    seconds: float = 30.0,
    kind: Annotated[list[str] | None, Parameter(negative=())] = None,
    prompt: str = "an owl on a blue background",
    deadline_s: float = 120.0,
    seed: int = 0,
    server: Annotated[str, Parameter(env_var="MUSE_SERVER")] = f"127.0.0.1:{ORCHESTRATOR_PORT}",
    transport: Transport = PLAIN_TEXT,
    out: Path = Path("out/bench"),
) -> None:
    """Sends open-loop load to running servers and measures them.

    Parameters
    ----------
    stage
        Stage to call directly, or the whole system.
    rate
        Mean requests a second; several rates run one after the other. 0.5 by default.
    seconds
        Duration of the arrivals at each rate.
    kind
        A kind of request, such as "steps=8,guidance_scale=0,weight=3"; several make a mix. Every
        sampling parameter that it leaves out has the server's default.
    prompt
        Prompt of every request.
    deadline_s
        Seconds a request may take.
    seed
        Seed of arrivals, mix and images.
    server
        Address of the orchestrator, HOST:PORT.
    out
        Folder for bench.json, bench.png and bench.html.
    """
    from rich.console import Console

    from tools.bench.arrivals import parse_kind, poisson_arrivals
    from tools.bench.load import run_load
    from tools.bench.rendering import stage_table, summary_table, write_plot
    from tools.bench.summary import summarise
    from tools.bench.targets import open_target
    from tools.cli.image_files import check_folder

    check_folder("out", out)
    kinds = [parse_kind(text) for text in kind or [""]]

    async def measure() -> "list[Summary]":
        loads = [
            poisson_arrivals(kinds, rate=each, seconds=seconds, seed=seed) for each in rate or [0.5]
        ]
        async with open_target(
            stage, server, prompt, timeout_s=deadline_s, tls=transport.tls()
        ) as send:
            await send(kinds[0], seed)  # connected and warm before the clock starts
            return [summarise(await run_load(send, load), seconds=seconds) for load in loads]

    runs = asyncio.run(measure())
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "stage": stage,
        "prompt": prompt,
        "seed": seed,
        "seconds": seconds,
        "kinds": [each.name for each in kinds],
        "runs": [asdict(run) for run in runs],
    }
    (out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    console = Console()
    console.print(summary_table(runs))
    for run in runs:
        console.print(stage_table(run))
    title = f"{stage}: {seconds:g} s a load, Poisson arrivals, seed {seed}"
    write_plot(runs, out, title=title)
    console.print(f"{out}/bench.json, bench.png, bench.html", highlight=False, markup=False)
