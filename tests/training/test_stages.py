"""Every stage learns on top of the frozen ones before it, and exports what a server reads."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.base.spec import BASE
from services.masked.engine import MaskedEngine
from services.presets import preset
from services.runtime.checkpoints.serialization import load_checkpoint
from services.superres.config import SuperresConfig
from services.tokenizer.config import TokenizerConfig
from training import runs
from training.loop import LoopSettings, Task, train
from training.mesh import one_device
from training.optimizers import Recipe
from training.recipe_changes import RecipeChanges
from training.recipes import RECIPES
from training.sharded_step import ShardedStep
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masked_tokens import MaskedTokensTask

TINY = preset("tiny")
STEPS = 2
TWO_STEPS = RecipeChanges(steps=STEPS)


@pytest.fixture(scope="module", autouse=True)
def few_captions() -> Iterator[None]:
    """Measures words on fewer captions: a picture is drawn for each of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "MEASURED_CAPTIONS", 128)
        yield


@pytest.fixture(scope="module")
def checkpoints(artwork: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the text encoder and the low tokenizer trained for two steps, and the high one.

    That would learn by the same code, and its step takes half a minute to compile.
    """
    root, out = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("runs")
    text = runs.text_encoder_task(TINY, artwork, out / "text", seed=0, changes=TWO_STEPS)
    _learn(text, out / "text", root / "text_encoder")
    low, high = (
        runs.tokenizer_task(TINY, artwork, out, resolution=resolution, seed=0, changes=TWO_STEPS)
        for resolution in ("low", "high")
    )
    _learn(low, out / "low", root / "tokenizer" / "low")
    high.export(
        _params(high, high.initial_state(high.given)),
        root / "tokenizer" / "high",
        {"preset": "tiny"},
    )
    return root


def _learn(task: Task, out: Path, checkpoint: Path) -> None:
    run = train(task, LoopSettings(steps=STEPS, out=out, report_every=1))
    assert run.finished
    assert np.isfinite(run.metrics["loss"])
    task.export(_params(task, run.state), checkpoint, {"preset": "tiny"})


def _params(task: Task, state: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in task.params(state).items()}


@pytest.fixture(scope="module")
def base(
    artwork: Path, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> MaskedTokensTask:
    """The task of the base on the frozen stages before it."""
    out = tmp_path_factory.mktemp("base")
    task = runs.transformer_task(TINY, "base", artwork, checkpoints, out, seed=0, changes=TWO_STEPS)
    assert isinstance(task, MaskedTokensTask)
    return task


@pytest.fixture(scope="module")
def superres(
    artwork: Path, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> MaskedTokensTask:
    """The task of superres on the frozen stages before it."""
    out = tmp_path_factory.mktemp("superres")
    task = runs.transformer_task(
        TINY, "superres", artwork, checkpoints, out, seed=0, changes=TWO_STEPS
    )
    assert isinstance(task, MaskedTokensTask)
    return task


def test_base_learns_and_names_the_encoder_and_codebook_it_learned_with(
    base: MaskedTokensTask, checkpoints: Path, tmp_path: Path
) -> None:
    _learn(base, tmp_path / "run", tmp_path / "base")

    low = load_checkpoint(
        checkpoints / "tokenizer" / "low", stage="tokenizer", config_type=TokenizerConfig
    )
    engine = MaskedEngine.load(BASE, tmp_path / "base")
    assert engine.checkpoint.fingerprint["codebook"] == low.fingerprint["codebook"]
    assert list((tmp_path / "run" / "pictures").iterdir())


def test_superres_learns_and_names_both_codebooks(
    superres: MaskedTokensTask, tmp_path: Path
) -> None:
    _learn(superres, tmp_path / "run", tmp_path / "superres")

    made = load_checkpoint(tmp_path / "superres", stage="superres", config_type=SuperresConfig)
    assert set(made.fingerprint) == {"encoder", "low_codebook", "codebook"}


def test_rounded_factors_learn_nearly_the_same(superres: MaskedTokensTask) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        task = _with(superres, precision=precision)
        step = ShardedStep(task, one_device())
        _, metrics = step(task.initial_state(task.given), task.batch(0), 0, task.phase(0))
        losses.append(float(metrics["loss"]))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_superres_may_learn_from_corrupted_low_tokens(superres: MaskedTokensTask) -> None:
    losses = []
    for share in (0.0, 0.5):
        task = _with(superres, low_corruption=share)
        step = ShardedStep(task, one_device())
        _, metrics = step(task.initial_state(task.given), task.batch(0), 0, task.phase(0))
        losses.append(float(metrics["loss"]))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def _with(task: MaskedTokensTask, **changed: Any) -> MaskedTokensTask:
    step = MaskedTokensStep(task.config, replace(task.recipe, **changed), one_device())
    return MaskedTokensTask(step, task._frozen, task.batch)


def test_a_recipe_of_no_examples_is_refused() -> None:
    recipe: Recipe = RECIPES["tiny"].base
    with pytest.raises(ValueError, match="distinct_examples must be at least 1, got 0"):
        replace(recipe, distinct_examples=0)
