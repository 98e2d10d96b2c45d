"""`python -m training.evaluation generate`: a set of pictures from a prompt file."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from muse_client import DEFAULT_ADDRESS, AsyncMuseClient, MuseClient
from rich.console import Console
from rich.progress import Progress

from services.sampling import NO_FLAGS, SamplingFlags, given
from tools.cli.options import PLAIN_TEXT, Transport, sampling_options
from training.evaluation.pictures.generation import REFUSED, generate_set
from training.evaluation.pictures.manifest import MANIFEST, read_manifest
from training.evaluation.pictures.prompts import read_prompts
from training.evaluation.server import Server

console = Console()


def generate(
    *,
    prompts: Path,
    out: Path,
    server: Server = DEFAULT_ADDRESS,
    copies: int = 1,
    best_of: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = 16,
    flags: Annotated[SamplingFlags, Parameter(name="*")] = NO_FLAGS,
    steps: int | None = None,
    superres_steps: int | None = None,
    transport: Transport = PLAIN_TEXT,
) -> None:
    """Generates pictures of a prompt file through running servers; continues where it stopped.

    Parameters
    ----------
    prompts
        Prompt file: .txt with one prompt a line, .jsonl with `prompt`, or .tsv with a column
        "Prompt"; other members and columns become tags of the pictures.
    out
        Folder of the pictures, of manifest.jsonl, which lists them with prompts, seeds and tags,
        and of refused.jsonl, which lists prompts that the servers refused.
    server
        Address of the orchestrator, HOST:PORT.
    transport
        TLS of the calls; plain text by default.
    copies
        Pictures of each prompt.
    best_of
        Candidates for each picture, of which the servers' scorer picks the best; no ranking if not
        set.
    limit
        Prompts to take, the first of the file; all if not set.
    seed
        Of the first picture; each picture's seed is in the manifest.
    concurrency
        Requests in progress at a time.
    flags
        Sampling parameters of both transformers; the servers' defaults if not set.
    steps
        Of the base; the servers' default if not set.
    superres_steps
        Of the super-resolution; the servers' default if not set.
    """
    counts = {"copies": copies, "best_of": best_of, "limit": limit, "concurrency": concurrency}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    with MuseClient(server, tls=transport.tls()) as client:
        options = sampling_options(client, given(flags), steps=steps, superres_steps=superres_steps)
    if best_of is not None:
        options["best_of"] = best_of

    async def run() -> int:
        async with AsyncMuseClient(server, tls=transport.tls()) as client:
            with progress_bar(str(out)) as on_progress:
                return await generate_set(
                    client,
                    read_prompts(prompts)[:limit],
                    out,
                    options,
                    copies=copies,
                    seed=seed,
                    concurrency=concurrency,
                    on_progress=on_progress,
                )

    refused = asyncio.run(run())
    console.print(f"{out / MANIFEST} lists {len(read_manifest(out))} pictures")
    if refused:
        console.print(f"{out / REFUSED} lists {refused} refused prompts")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar; yields what is called with the pictures finished and their total."""
    with Progress(console=console) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
