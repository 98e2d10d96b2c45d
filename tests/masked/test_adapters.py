"""Adapters of base and superres as servers: loading, naming, several in one batch, bad input."""

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from muse.common.v1.decoding_pb2 import PROGRESS_DETAIL_STATES, Adapter, Sampling

from services.masked.adapters import adapter_folders, load_adapters
from services.presets import preset
from services.runtime.checkpoints.errors import CheckpointError
from services.runtime.checkpoints.serialization import Checkpoint, load_checkpoint
from services.runtime.wire.errors import read_error
from tests.drawn_adapters import drawn_adapter
from tests.masked.conftest import Serve, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")
TINY = preset("tiny")


def read(checkpoints: Path, stage: str) -> Checkpoint[Any]:
    config = TINY.base if stage == "base" else TINY.superres
    return load_checkpoint(checkpoints / stage, stage=stage, config_type=type(config))


@pytest.fixture(scope="module")
def adapters(checkpoints: Path) -> dict[str, str]:
    """Adapters in the checkpoints' folders, of base fox and owl and of superres owl; digests."""
    digests = {}
    for stage, name, rank in (("base", "fox", 2), ("base", "owl", 3), ("superres", "owl", 2)):
        checkpoint = read(checkpoints, stage)
        adapter = drawn_adapter(
            checkpoints / stage / "adapters" / name,
            checkpoint.parameters,
            rank=rank,
            seed=rank,
            stage=stage,
            checkpoint=checkpoint.digest,
        )
        digests[f"{stage}/{name}"] = adapter.digest
    return digests


@pytest.fixture(scope="module")
async def adapted(serve: Serve, adapters: dict[str, str]) -> Any:
    """A base of four slots with two adapters."""
    async with serve("base", max_batch_size=4) as stage:
        yield stage


def named(**weights: float) -> list[Adapter]:
    return [Adapter(name=name, weight=weight) for name, weight in weights.items()]


async def tokens(stage: Stage, **changes: Any) -> bytes:
    return bytes((await stage.events(stage.request(**changes)))[-1].result.tokens.ids)


async def test_requests_of_several_adapters_share_a_batch_and_get_what_each_gets_alone(
    adapted: Stage, nothing_compiles: Callable[[], AbstractContextManager[None]]
) -> None:
    choices = [named(), named(fox=1), named(owl=1), named(fox=1, owl=-0.5)]
    sampling = Sampling(steps=6, seed=3, guidance_scale=3.0)
    with nothing_compiles():
        alone = [await tokens(adapted, adapters=each, sampling=sampling) for each in choices]
        together = await asyncio.gather(
            *(tokens(adapted, adapters=each, sampling=sampling) for each in choices)
        )

    assert together == alone
    assert len(set(alone)) == 4


async def test_a_name_alone_has_the_weight_of_1(adapted: Stage) -> None:
    assert await tokens(adapted, adapters=[Adapter(name="fox")]) == await tokens(
        adapted, adapters=named(fox=1)
    )


async def test_any_state_of_a_decode_resumes_with_its_adapters(adapted: Stage) -> None:
    request = adapted.request(adapters=named(owl=1), progress=PROGRESS_DETAIL_STATES)
    events = await adapted.events(request)

    for event in events[:-1]:
        resumed = await tokens(adapted, adapters=named(owl=1), resume=event.progress.state)
        assert resumed == events[-1].result.tokens.ids


async def test_superres_applies_its_own_and_a_flag_adds_more(
    serve: Serve, checkpoints: Path, adapters: dict[str, str]
) -> None:
    fox = f"fox={checkpoints / 'superres' / 'adapters' / 'owl'}"
    async with serve("superres", max_batch_size=2, adapter=(fox,)) as stage:
        status = await stage.status()
        plain, owl, as_fox = [
            await tokens(stage, adapters=each) for each in (named(), named(owl=1), named(fox=1))
        ]

    assert dict(status.adapters) == dict.fromkeys(("fox", "owl"), adapters["superres/owl"])
    assert plain != owl
    assert owl == as_fox


async def test_the_status_lists_each_adapter_with_its_digest(
    adapted: Stage, adapters: dict[str, str]
) -> None:
    assert dict((await adapted.status()).adapters) == {
        "fox": adapters["base/fox"],
        "owl": adapters["base/owl"],
    }


@pytest.mark.parametrize(
    ("wrong", "code", "field", "said"),
    [
        (named(cat=1), "NOT_FOUND", "adapters[0].name", "expected one of fox, owl, got 'cat'"),
        (named(fox=1, FOX=1), "NOT_FOUND", "adapters[1].name", "got 'FOX'"),
        (named(fox=1) * 2, "INVALID_ARGUMENT", "adapters[1].name", "each name once, got 'fox'"),
        (named(**{"": 1}), "INVALID_ARGUMENT", "adapters[0].name", "expected a name"),
        (named(fox=math.nan), "INVALID_ARGUMENT", "adapters[0].weight", "-10 to 10, got nan"),
        (named(fox=math.inf), "INVALID_ARGUMENT", "adapters[0].weight", "-10 to 10, got inf"),
        (named(fox=-10.5), "INVALID_ARGUMENT", "adapters[0].weight", "-10 to 10, got -10.5"),
        (
            named(**{f"a{number}": 1 for number in range(9)}),
            "INVALID_ARGUMENT",
            "adapters",
            "expected at most 8 of them, got 9",
        ),
    ],
)
async def test_a_bad_choice_is_refused_by_name_and_the_next_request_works(
    adapted: Stage, wrong: list[Adapter], code: str, field: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await adapted.events(adapted.request(adapters=wrong))
    refusal = read_error(caught.value)

    assert (refusal.code.name, refusal.violations[0].field) == (code, field)
    assert said in refusal.message
    assert await tokens(adapted, adapters=named(fox=10, owl=-10))


async def test_folders_of_a_checkpoint_and_of_flags_are_adapters(tmp_path: Path) -> None:
    assert adapter_folders(tmp_path) == {}
    for name in ("adapters/owl", "adapters/fox", "adapters/.copying", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "adapters" / "notes.txt").write_text("no adapter")

    found = adapter_folders(tmp_path, [f"cat={tmp_path}/elsewhere"])

    assert found == {
        "fox": tmp_path / "adapters" / "fox",
        "owl": tmp_path / "adapters" / "owl",
        "cat": tmp_path / "elsewhere",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/fox"], "expected NAME=FOLDER, such as fox=runs/fox, got 'runs/fox'"),
        (["fox="], "expected NAME=FOLDER, such as fox=runs/fox, got 'fox='"),
        (["a=x", "a=y"], "expected one folder of the name 'a', got x and y"),
        (["owl=x"], "expected one folder of the name 'owl', got .*adapters/owl and x"),
        (["a fox=x"], "expected a name of at most 64 letters, .* got 'a fox' for x"),
        (["=x"], "expected a name of at most 64 letters, .* got '' for x"),
        ([f"{'a' * 65}=x"], "expected a name of at most 64 letters"),
    ],
)
async def test_a_malformed_flag_is_refused_with_its_text(
    tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "adapters" / "owl").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"^adapter: {said}"):
        adapter_folders(tmp_path, words)


def _of_another_checkpoint(folder: Path) -> None:
    header = json.loads((folder / "config.json").read_text())
    header["adapter_of"]["checkpoint"] = "sha256:another"
    (folder / "config.json").write_text(json.dumps(header))


def _of_another_stage(folder: Path) -> None:
    header = json.loads((folder / "config.json").read_text())
    header["adapter_of"]["stage"] = "superres"
    (folder / "config.json").write_text(json.dumps(header))


def _cut(folder: Path) -> None:
    file = folder / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_of_another_checkpoint, "belongs to the base of digest sha256:another, .* has sha256:"),
        (_of_another_stage, "is an adapter of superres: expected one of base"),
        (_cut, "is not what was written: expected sha256:.*, as config.json says, got sha256:"),
        (_empty, "no adapter in .*: expected the file config.json there"),
    ],
)
async def test_an_adapter_that_does_not_fit_ends_the_start_with_one_sentence(
    checkpoints: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    checkpoint = read(checkpoints, "base")
    drawn_adapter(tmp_path, checkpoint.parameters, checkpoint=checkpoint.digest)
    assert load_adapters({"fox": tmp_path}, "base", checkpoint).keys() == {"fox"}
    damage(tmp_path)

    with pytest.raises(CheckpointError, match=said):
        load_adapters({"fox": tmp_path}, "base", checkpoint)


async def test_an_adapter_of_other_shapes_or_numbers_is_refused(
    checkpoints: Path, tmp_path: Path
) -> None:
    checkpoint = read(checkpoints, "base")
    name = "blocks.mlp.expand.kernel"
    wider = np.concatenate([checkpoint.parameters[name]] * 2, axis=-1)
    drawn_adapter(tmp_path / "wide", {name: wider}, checkpoint=checkpoint.digest)
    with pytest.raises(CheckpointError, match=f"adapts {name} of shape .*: .* has"):
        load_adapters({"wide": tmp_path / "wide"}, "base", checkpoint)
    with pytest.raises(CheckpointError, match=r"values of .* are infinite or NaN"):
        drawn_adapter(tmp_path / "nan", {name: wider}, spread=math.nan)
