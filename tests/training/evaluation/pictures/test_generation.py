"""Sets generated through servers: resumed, concurrent, with prompts refused and servers busy."""

import json
import warnings
from pathlib import Path
from typing import Any

import grpc
import pytest
from muse_client import AsyncMuseClient, InvalidRequest, sampling
from muse_client.errors import Overloaded

from tests.small_stages import LONGEST_TEXT, House
from training.evaluation.pictures import generation
from training.evaluation.pictures.generation import REFUSED, generate_set
from training.evaluation.pictures.manifest import MANIFEST, planned_entries, read_manifest
from training.evaluation.pictures.prompts import Prompt

PROMPTS = [Prompt("a ball", {"kind": "one"}), Prompt("two cups")]


async def run(house: House, folder: Path, **changes: Any) -> int:
    """Generates a set of two pictures a prompt; `changes` replaces arguments."""
    arguments: dict[str, Any] = {
        "prompts": PROMPTS,
        "options": {"base": sampling(steps=2), "superres": sampling(steps=1)},
        "copies": 2,
        "seed": 5,
        "concurrency": 3,
        "on_progress": lambda done, total: None,
    }
    async with AsyncMuseClient(house.address) as client:
        return await generate_set(client, folder=folder, **(arguments | changes))


async def test_a_set_is_listed_with_prompts_seeds_and_tags(house: House, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    refused = await run(house, tmp_path, on_progress=lambda *now: progress.append(now))

    entries = read_manifest(tmp_path)
    assert refused == 0
    assert [(entry.prompt, entry.seed) for entry in entries] == [
        ("a ball", 5), ("a ball", 6), ("two cups", 7), ("two cups", 8),
    ]  # fmt: skip
    assert [entry.tags for entry in entries] == [{"kind": "one"}] * 2 + [{}] * 2
    assert all((tmp_path / entry.file).read_bytes()[1:4] == b"PNG" for entry in entries)
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_what_is_there_is_not_made_again(house: House, tmp_path: Path) -> None:
    await run(house, tmp_path)
    manifest, calls = tmp_path / MANIFEST, len(house.stages["base"].asked)
    first, *_ = read_manifest(tmp_path)
    (tmp_path / first.file).unlink()
    manifest.write_bytes(manifest.read_bytes()[:-5])  # as a killed run leaves it

    await run(house, tmp_path)

    assert len(house.stages["base"].asked) == calls + 2
    assert [entry.seed for entry in read_manifest(tmp_path)] == [5, 6, 7, 8]
    assert all(json.loads(line) for line in manifest.read_text().splitlines())


async def test_a_folder_of_another_set_is_refused(house: House, tmp_path: Path) -> None:
    await run(house, tmp_path)
    others: list[dict[str, Any]] = [{"seed": 6}, {"prompts": PROMPTS[:1]}, {"options": {}}]
    for changes in others:
        with pytest.raises(ValueError, match=r"holds another set.*name another folder"):
            await run(house, tmp_path, **changes)


async def test_a_prompt_that_is_too_long_is_listed_and_the_others_go_on(
    house: House, tmp_path: Path
) -> None:
    long = Prompt("ball " * (LONGEST_TEXT + 1))
    assert await run(house, tmp_path, prompts=[long, *PROMPTS], copies=1) == 1

    (refusal,) = map(json.loads, (tmp_path / REFUSED).read_text().splitlines())
    assert refusal["prompt_index"] == 0
    assert f"at most {LONGEST_TEXT} tokens" in refusal["reason"]
    assert len(read_manifest(tmp_path)) == 2

    with pytest.raises(ValueError, match=r"refused every prompt.*refused\.jsonl"):
        await run(house, tmp_path / "other", prompts=[long])


async def test_words_that_the_checkpoint_does_not_know_are_no_warnings(
    house: House, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await run(house, tmp_path, prompts=[Prompt("a zebra")], copies=1) == 0
    assert len(read_manifest(tmp_path)) == 1


async def test_options_that_are_refused_end_the_run(house: House, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="steps"):
        await run(house, tmp_path, options={"base": sampling(steps=10_000)})


async def test_overloaded_servers_are_asked_again_and_given_up_in_the_end(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, waits, tries = 3, list[float](), 0
    generate = AsyncMuseClient.generate

    async def sometimes(client: AsyncMuseClient, prompt: str, **options: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries <= busy:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise Overloaded(code, "busy", retry_after_s=0.25 if tries == 1 else None)
        return await generate(client, prompt, **options)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(AsyncMuseClient, "generate", sometimes)
    # Not that of the whole process: servers of this test wait by it too, and would not yield.
    monkeypatch.setattr(generation, "sleep", sleep)
    await run(house, tmp_path / "one", prompts=PROMPTS[:1], copies=1)
    assert waits == [0.25, 2.0, 4.0]

    busy, tries = 10**6, 0
    with pytest.raises(Overloaded):
        await run(house, tmp_path / "two", prompts=PROMPTS[:1], copies=1)
    assert tries == generation.TRIES


def test_candidates_of_two_pictures_share_no_seed() -> None:
    entries = planned_entries(PROMPTS, copies=2, candidates=16, seed=3)
    assert [entry.seed for entry in entries] == [3, 19, 35, 51]
    assert len({entry.file for entry in entries}) == 4
