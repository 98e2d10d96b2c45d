"""Every stage goes on from a checkpoint, and adapters are trained by the command line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import pytest

from services.base.config import BaseConfig
from services.base.spec import BASE
from services.masked.engine import MaskedEngine
from services.presets import preset
from services.runtime.checkpoints.adapters import LowRank, load_adapter
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.serialization import load_checkpoint, save_checkpoint
from services.superres.config import SuperresConfig
from services.text_encoder.known_words import KnownWords
from services.text_encoder.loading import load_text_encoder
from training import runs
from training.__main__ import app
from training.loop import Task
from training.recipe_changes import RecipeChanges

TINY = preset("tiny")
TWO_STEPS = RecipeChanges(steps=2)
Stage = Literal["base", "superres"]


@pytest.fixture(scope="module", autouse=True)
def few_captions() -> Iterator[None]:
    """Measures words on fewer captions: a picture is drawn for each of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "MEASURED_CAPTIONS", 128)
        yield


@pytest.fixture(scope="module")
def checkpoints(artwork: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a checkpoint of every stage, each as it is before its first step."""
    root, out = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("runs")
    text = runs.text_encoder_task(TINY, artwork, out / "text", seed=0, changes=TWO_STEPS)
    _export(text, root / "text_encoder")
    for resolution in ("low", "high"):
        tokenizer = runs.tokenizer_task(TINY, artwork, out, resolution=resolution, seed=0)
        _export(tokenizer, root / "tokenizer" / resolution)
    for stage in ("base", "superres"):
        _export(_transformer(stage, artwork, root, out / stage), root / stage)
    return root


def _transformer(stage: Any, artwork: Path, root: Path, out: Path, **changed: Any) -> Any:
    return runs.transformer_task(
        TINY, stage, artwork, root, out, seed=0, changes=TWO_STEPS, **changed
    )


def _initial(task: Task) -> dict[str, np.ndarray]:
    given = {name: jnp.asarray(value) for name, value in task.given.items()}
    params = task.params(task.initial_state(given))
    return {name: np.asarray(value) for name, value in params.items()}


def _export(task: Task, folder: Path) -> None:
    task.export(_initial(task), folder, {"preset": "tiny"})


def _shape(stage: Stage) -> BaseConfig | SuperresConfig:
    return TINY.base if stage == "base" else TINY.superres


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_a_transformer_starts_from_a_checkpoint(
    stage: Stage, artwork: Path, checkpoints: Path, tmp_path: Path
) -> None:
    start = checkpoints / stage
    initial = _initial(_transformer(stage, artwork, checkpoints, tmp_path, initialize_from=start))
    read = load_checkpoint(start, stage=stage, config_type=type(_shape(stage)))
    assert initial.keys() == read.parameters.keys()
    for name, value in read.parameters.items():
        np.testing.assert_array_equal(initial[name], value.astype(np.float32), name)


def test_a_text_encoder_starts_from_a_checkpoint_and_keeps_its_vocabulary(
    artwork: Path, checkpoints: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    for file in (checkpoints / "text_encoder").iterdir():
        (start / file.name).write_bytes(file.read_bytes())
    KnownWords(words=frozenset({"zebra"}), subjects={"objects": ("zebra",)}).save(
        start / "known_words.json"
    )
    read = load_checkpoint(start, stage="text_encoder", config_type=type(TINY.text_encoder))

    task = runs.text_encoder_task(
        TINY, artwork, tmp_path / "run", seed=7, changes=TWO_STEPS, initialize_from=start
    )
    initial = _initial(task)
    for name, value in read.parameters.items():
        np.testing.assert_array_equal(initial[f"encoder.{name}"], value.astype(np.float32), name)
    _export(task, tmp_path / "encoder")

    made, old = load_text_encoder(tmp_path / "encoder"), load_text_encoder(start)
    assert made.vocabulary.model == old.vocabulary.model
    assert made.fingerprint == old.fingerprint  # nothing was learned yet
    assert made.known_words is not None
    assert {"zebra", "ball"} <= made.known_words.words
    assert made.known_words.subjects["objects"][0] == "zebra"
    again = runs.text_encoder_task(TINY, artwork, tmp_path / "run", seed=7, changes=TWO_STEPS)
    assert again.vocabulary.model == old.vocabulary.model  # that of the run's folder


def test_a_text_encoder_of_another_shape_is_refused(
    artwork: Path, checkpoints: Path, tmp_path: Path
) -> None:
    deeper = replace(TINY, text_encoder=replace(TINY.text_encoder, layers=2))
    with pytest.raises(CheckpointMismatch, match=r"a text encoder of another shape.*layers=1"):
        runs.text_encoder_task(
            deeper, artwork, tmp_path, seed=0, initialize_from=checkpoints / "text_encoder"
        )


def _with(checkpoints: Path, folder: Path, **changed: Any) -> Path:
    """Copies the base's checkpoint with another fingerprint or without some parameters."""
    read = load_checkpoint(checkpoints / "base", stage="base", config_type=BaseConfig)
    made = replace(read, **changed)
    save_checkpoint(
        folder,
        stage="base",
        config=made.config,
        parameters=made.parameters,
        fingerprint=made.fingerprint,
        record=made.record,
    )
    return folder


def test_a_base_of_other_stages_may_learn_these_but_an_adapter_may_not(
    artwork: Path, checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = _with(checkpoints, tmp_path / "other", fingerprint={"encoder": "t5:other"})

    task = _transformer("base", artwork, checkpoints, tmp_path / "run", initialize_from=other)
    assert task.name == "base"
    assert "was trained for {'encoder': 't5:other'}, the stages in --checkpoints" in caplog.text

    with pytest.raises(CheckpointMismatch, match="an adapter needs those of its checkpoint"):
        _transformer(
            "base",
            artwork,
            checkpoints,
            tmp_path / "run",
            initialize_from=other,
            low_rank=LowRank(rank=2),
        )


def test_a_checkpoint_that_lacks_parameters_is_refused(
    artwork: Path, checkpoints: Path, tmp_path: Path
) -> None:
    lacking = _with(checkpoints, tmp_path / "lacking", parameters={})
    with pytest.raises(CheckpointMismatch, match=r"missing .*blocks"):
        _transformer("base", artwork, checkpoints, tmp_path / "run", initialize_from=lacking)


def _run(*arguments: object) -> None:
    app([str(each) for each in arguments], result_action="return_value")


def test_the_commands_train_an_adapter_that_a_server_reads_merged_or_beside_its_checkpoint(
    artwork: Path, checkpoints: Path, tmp_path: Path
) -> None:
    start, out = checkpoints / "base", tmp_path / "run"
    before = (start / "model.safetensors").read_bytes()
    where = ("--preset", "tiny", "--data", artwork, "--checkpoints", checkpoints, "--out", out)
    adapter = ("--from", start, "--adapter-rank", 2, "--adapter-alpha", 4)
    _run("base", *where, *adapter, "--steps", 2)
    merged = ("--checkpoint", start, "--adapter", out / "adapter", "--out", tmp_path / "merged")
    _run("merge", *merged)

    read, engine = load_adapter(out / "adapter"), MaskedEngine.load(BASE, tmp_path / "merged")
    assert read.low_rank == LowRank(rank=2, alpha=4.0)
    assert read.record["steps"] == 2
    assert engine.checkpoint.record["merged_adapter"]["digest"] == read.digest
    beside = MaskedEngine.load(BASE, start, adapters={"new": out / "adapter"})
    assert (beside.adapters, beside.pool.adapters.rank) == ({"new": read.digest}, 2)
    with pytest.raises(CheckpointMismatch, match="belongs to the base of digest"):
        MaskedEngine.load(BASE, tmp_path / "merged", adapters={"new": out / "adapter"})
    assert (start / "model.safetensors").read_bytes() == before
    assert list((out / "pictures").iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--adapter-rank", 2), "expected --from beside --adapter-rank"),
        (("--adapter-alpha", 2), "expected --adapter-rank beside it, got none"),
        (("--adapter-rank", 0), "rank must be at least 1, got 0"),
    ],
)
def test_flags_of_an_adapter_that_make_no_sense_are_refused(
    flags: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    where = ("--preset", "tiny", "--data", tmp_path, "--checkpoints", tmp_path, "--out", tmp_path)
    with pytest.raises(ValueError, match=message):
        _run("base", *where, *flags)
