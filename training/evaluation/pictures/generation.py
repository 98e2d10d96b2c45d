"""Generation of a set of pictures through running servers, many requests at a time."""

import asyncio
import json
import warnings
from asyncio import sleep
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from muse_client import (
    AsyncMuseClient,
    DeadlineExceeded,
    GeneratedImage,
    GenerateOptions,
    InvalidRequest,
    MuseWarning,
    Overloaded,
    Unavailable,
)

from training.evaluation.pictures.manifest import (
    Entry,
    add_entry,
    claim_folder,
    planned_entries,
    read_manifest,
)
from training.evaluation.pictures.prompts import Prompt

REFUSED = "refused.jsonl"
TRIES = 8  # of a request that servers may answer later
LONGEST_WAIT_S = 30.0


async def generate_set(
    client: AsyncMuseClient,
    prompts: Sequence[Prompt],
    folder: Path,
    options: GenerateOptions,
    *,
    copies: int,
    seed: int,
    concurrency: int,
    on_progress: Callable[[int, int], None],
) -> int:
    """Generates the pictures that a set does not have yet; returns how many were refused.

    A prompt that the servers refuse, such as one that is too long, is written to refused.jsonl with
    the reason, and the others go on. A server that is overloaded or away is asked again. Warnings
    of unknown words are ignored.

    Args:
        client: Of the orchestrator.
        prompts: Of the set; at least one.
        folder: Of the set; a picture is added to its manifest when its file is complete.
        options: What every request says besides its prompt and seed.
        copies: Pictures of each prompt; at least 1.
        seed: Of the first picture.
        concurrency: Requests in progress at a time; at least 1.
        on_progress: Called with the pictures finished and their total, as each is finished or
            refused.

    Raises:
        ValueError: the folder holds another set, or every prompt was refused.
        MuseError: the servers refuse the options, or a request failed TRIES times.
    """
    candidates = options.get("best_of", 1)
    entries = planned_entries(prompts, copies=copies, candidates=candidates, seed=seed)
    claim_folder(folder, entries, _as_json(options))
    there = {entry.file for entry in read_manifest(folder)}
    waiting = deque(entry for entry in entries if entry.file not in there)
    done, refused = len(there), 0
    (folder / REFUSED).unlink(missing_ok=True)

    async def work() -> None:
        nonlocal done, refused
        while waiting:
            entry = waiting.popleft()
            request: GenerateOptions = {**options, "seed": entry.seed}
            try:
                picture = await _generate(client, entry.prompt, request)
            except InvalidRequest as error:
                if {violation.field for violation in error.violations} != {"prompt"}:
                    raise
                _add_refusal(folder, entry, error.message)
                refused += 1
            else:
                _keep(folder, entry, picture)
            done += 1
            on_progress(done, len(entries))

    try:
        with warnings.catch_warnings():
            # Prompt sets have words that a checkpoint does not know; the pictures show the result.
            warnings.simplefilter("ignore", MuseWarning)
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
    except ExceptionGroup as failed:  # its other members failed for the same reason
        raise failed.exceptions[0] from None
    if refused == len(entries):
        raise ValueError(f"the servers refused every prompt; {folder / REFUSED} says why")
    return refused


async def _generate(
    client: AsyncMuseClient, prompt: str, request: GenerateOptions
) -> GeneratedImage:
    for attempt in range(1, TRIES):
        try:
            return (await client.generate(prompt, **request))[0]
        except (Overloaded, Unavailable, DeadlineExceeded) as error:
            wait_s = error.retry_after_s or 0.5 * 2**attempt
            await sleep(min(wait_s, LONGEST_WAIT_S))
    return (await client.generate(prompt, **request))[0]


def _keep(folder: Path, entry: Entry, picture: GeneratedImage) -> None:
    part = folder / f"{entry.file}.part"  # so that no picture is half a file
    part.write_bytes(picture.png)
    part.rename(folder / entry.file)
    add_entry(folder, replace(entry, seed=picture.seed))  # the best candidate's own


def _add_refusal(folder: Path, entry: Entry, reason: str) -> None:
    refusal = {"prompt_index": entry.prompt_index, "prompt": entry.prompt, "reason": reason}
    with (folder / REFUSED).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(refusal, ensure_ascii=False) + "\n")


def _as_json(options: GenerateOptions) -> dict[str, Any]:
    """Returns options as JSON: a message as its set fields."""
    return {
        name: MessageToDict(value, preserving_proto_field_name=True)
        if isinstance(value, Message)
        else value
        for name, value in options.items()
    }
