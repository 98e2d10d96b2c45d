"""Low-rank adapters: what learns, what stays, and what becomes of them in a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.nn.parameters import parameters_of
from services.runtime.checkpoints.adapters import LowRank, load_adapter
from services.runtime.checkpoints.errors import CheckpointError, CheckpointMismatch
from services.runtime.checkpoints.serialization import (
    Checkpoint,
    load_checkpoint,
    round_to_bfloat16,
    save_checkpoint,
)
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from tests.training.train_small_base import NoStages
from training.averaging import average_run
from training.loop import LoopSettings, train
from training.merging import merge_adapter
from training.mesh import one_device
from training.optimizers import Recipe
from training.resuming import ResumeError
from training.sharded_step import ShardedStep
from training.tasks.adapters import AdapterState, AdapterTask
from training.tasks.frozen import Examples
from training.tasks.masked_step import MaskedTokensStep

BASE = BaseConfig(
    grid=4, vocabulary=31, text_hidden=8, text_length=4, hidden=16, layers=1, heads=2, mlp=32
)
SUPERRES = SuperresConfig(
    **{**vars(BASE), "grid": 8}, low_grid=4, low_vocabulary=31, low_layers=1, block=4
)
RECIPE = Recipe(
    steps=4,
    batch_size=4,
    learning_rate=0.05,
    warm_up_steps=1,
    first_decay=0.9,
    second_decay=0.96,
    weight_decay=0.0,
)
LOW_RANK = LowRank(rank=2, alpha=8.0)
MATRICES = {  # of attention, cross-attention and MLP
    "attention.output",
    "attention.project",
    "cross.key_value",
    "cross.output",
    "cross.query",
    "mlp.contract",
    "mlp.expand",
}


class Stages(NoStages):
    """Stands for the frozen stages, of which no caption was cut."""

    text_encoder: Any = SimpleNamespace(captions_read=0, captions_cut=0)


class WithoutPictures(AdapterTask):
    """An adapter's task without pictures, which take a tokenizer."""

    def picture(self, state: Any, batch: Examples) -> None:
        """Draws nothing."""


def examples(config: BaseConfig | SuperresConfig) -> Examples:
    """Returns four random examples, always the same."""
    random = np.random.default_rng(1)
    high = random.integers(0, 31, (4, config.tokens)).astype(np.int32)
    superres = isinstance(config, SuperresConfig)
    low = random.integers(0, 31, (4, 16)).astype(np.int32) if superres else high
    return Examples(
        low=jnp.asarray(low),
        high=jnp.asarray(high) if superres else None,
        text=jnp.asarray(random.normal(size=(4, 4, 8)), jnp.float32),
        text_mask=jnp.arange(4) < jnp.array([[1], [2], [3], [4]]),
    )


def saved(folder: Path, config: BaseConfig | SuperresConfig, seed: int = 0) -> Checkpoint[Any]:
    """Writes a checkpoint of random parameters and reads it back."""
    stage = "superres" if isinstance(config, SuperresConfig) else "base"
    rngs = nnx.Rngs(seed)
    model = (
        SuperresTransformer(config, rngs=rngs)
        if isinstance(config, SuperresConfig)
        else BaseTransformer(config, rngs=rngs)
    )
    parameters = {name: np.asarray(value) for name, value in parameters_of(model).items()}
    save_checkpoint(
        folder,
        stage=stage,
        config=config,
        parameters=round_to_bfloat16(parameters),
        fingerprint=Stages().fingerprint(),
        record={"preset": "small"},
    )
    return load_checkpoint(folder, stage=stage, config_type=type(config))


def task_of(
    checkpoint: Checkpoint[Any], low_rank: LowRank = LOW_RANK, recipe: Recipe = RECIPE
) -> AdapterTask:
    """Returns the task of an adapter that sees the same four examples at every step."""
    batch = examples(checkpoint.config)
    stages, execution = Stages(), one_device()
    return WithoutPictures(checkpoint, low_rank, recipe, execution, stages, lambda _: batch)


def logits(
    config: BaseConfig | SuperresConfig,
    parameters: Mapping[str, Any],
    low_rank: LowRank | None = None,
) -> np.ndarray:
    """Returns the logits of half masked examples, every other one without its text."""
    step = MaskedTokensStep(config, RECIPE, one_device(), low_rank=low_rank)
    hidden = jnp.arange(config.tokens) % 2 == jnp.zeros((4, 1))
    conditional = jnp.arange(4) % 2 == 0
    return np.asarray(jax.jit(step.logits)(dict(parameters), examples(config), hidden, conditional))


def initial(task: AdapterTask) -> AdapterState:
    return task.initial_state({name: jnp.asarray(value) for name, value in task.given.items()})


def whole(state: AdapterState) -> dict[str, Any]:
    return state.frozen | state.adapter.params


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint[Any]:
    """A small base's checkpoint."""
    return saved(tmp_path_factory.mktemp("base"), BASE)


@pytest.fixture(scope="module")
def trained(
    base: Checkpoint[Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[AdapterState, Path, Path]:
    """The last state of a run of four steps, the folder of the run, and that of its adapter."""
    out = tmp_path_factory.mktemp("run")
    task = task_of(base)
    ended = train(task, LoopSettings(steps=RECIPE.steps, out=out, report_every=1))
    task.export(ended.snapshots.average(0.7), out / "adapter", {"steps": RECIPE.steps})
    return ended.state, out, out / "adapter"


@pytest.mark.parametrize("config", [BASE, SUPERRES], ids=["base", "superres"])
def test_an_untrained_adapter_changes_no_logit(
    config: BaseConfig | SuperresConfig, tmp_path: Path
) -> None:
    checkpoint = saved(tmp_path, config)
    state = initial(task_of(checkpoint))

    stacks = ("blocks",) if config is BASE else ("blocks", "low_blocks")
    adapted = {
        name.removesuffix(".lora_a")
        for name in task_of(checkpoint).params(state)
        if name.endswith("lora_a")
    }
    assert {name for name in adapted if name.startswith("blocks.")} == {
        f"blocks.{matrix}"
        if config is BASE or not matrix.startswith("attention")
        else f"blocks.attention.{matrix}"
        for matrix in MATRICES
    }
    assert {name.split(".")[0] for name in adapted} == set(stacks)
    for name, value in state.adapter.params.items():
        assert np.any(value) == name.endswith("lora_a"), name
    plain = logits(config, checkpoint.parameters)
    np.testing.assert_allclose(logits(config, whole(state), LOW_RANK), plain, atol=1e-6)


def test_only_the_adapter_learns_and_only_it_has_an_optimizer(
    base: Checkpoint[Any], trained: tuple[AdapterState, Path, Path]
) -> None:
    state, _, _ = trained
    assert state.frozen.keys() == base.parameters.keys()
    for name, value in state.frozen.items():
        np.testing.assert_array_equal(value, base.parameters[name].astype(np.float32), name)
    for name, value in state.adapter.params.items():
        assert np.abs(value).max() > 0, name

    learned = sum(value.size for value in state.adapter.params.values())
    kept = sum(leaf.size for leaf in jax.tree.leaves(state.adapter.opt_state))
    assert kept < 2.5 * learned < sum(value.size for value in state.frozen.values())


def test_an_adapter_learns_four_pictures(base: Checkpoint[Any]) -> None:
    # The last kernel of a fresh base is small, and no adapter learns there.
    last = "head.output.kernel"
    decided = replace(base, parameters={**base.parameters, last: 50 * base.parameters[last]})
    task = task_of(decided, LowRank(rank=8), replace(RECIPE, steps=40, learning_rate=0.03))
    step = ShardedStep(task, one_device())
    state, losses = initial(task), []
    for at in range(40):
        state, metrics = step(state, task.batch(at), 0, task.phase(at))  # the same masks each time
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def test_an_adapter_is_a_small_file_that_names_its_checkpoint(
    base: Checkpoint[Any], trained: tuple[AdapterState, Path, Path]
) -> None:
    state, _, folder = trained
    read = load_adapter(folder)

    assert (read.stage, read.checkpoint, read.low_rank) == ("base", base.digest, LOW_RANK)
    assert read.record["recipe"]["steps"] == RECIPE.steps
    assert read.factors.keys() == {f"blocks.{matrix}.kernel" for matrix in MATRICES}
    learned = sum(value.size for value in state.adapter.params.values())
    size = (folder / "adapter.safetensors").stat().st_size
    assert 2 * learned < size < 2 * learned + 4096  # bfloat16, and the header


def with_factors(base: Checkpoint[Any], folder: Path) -> dict[str, np.ndarray]:
    """Returns the parameters of a transformer with an adapter that was read from its file."""
    factors: dict[str, np.ndarray] = {}
    for name, (a, b) in load_adapter(folder).factors.items():
        product = name.replace(".kernel", ".adapter")
        factors |= {f"{product}.lora_a": a, f"{product}.lora_b": b}
    return base.parameters | factors


def test_a_merged_checkpoint_gives_the_logits_of_the_adapter(
    base: Checkpoint[Any], trained: tuple[AdapterState, Path, Path], tmp_path: Path
) -> None:
    _, _, folder = trained
    (base.folder / "sampling.json").write_text("{}")
    merge_adapter(base.folder, folder, tmp_path)
    merged = load_checkpoint(tmp_path, stage="base", config_type=BaseConfig)

    adapted = logits(BASE, with_factors(base, folder), LOW_RANK)
    np.testing.assert_allclose(logits(BASE, merged.parameters), adapted, rtol=1e-5, atol=2e-6)
    plain = np.abs(logits(BASE, base.parameters) - adapted).max()
    rounded = logits(BASE, dict(round_to_bfloat16(merged.parameters)))
    assert np.abs(rounded - adapted).max() < 0.1 * plain  # what a server in bfloat16 loses

    assert (merged.config, merged.fingerprint) == (base.config, base.fingerprint)
    assert merged.record["preset"] == "small"
    assert merged.record["merged_adapter"]["checkpoint"] == base.digest
    assert (tmp_path / "sampling.json").read_text() == "{}"
    for name, value in base.parameters.items():
        same = name.removesuffix(".kernel").removeprefix("blocks.") not in MATRICES
        assert np.array_equal(merged.parameters[name], value) is same, name


def test_a_change_below_the_spacing_of_bfloat16_is_not_rounded_away(
    base: Checkpoint[Any], tmp_path: Path
) -> None:
    name = "blocks.mlp.expand.kernel"
    a = np.full((1, 16, 2), 1e-4, ml_dtypes.bfloat16)
    b = np.full((1, 2, 32), 1e-2, ml_dtypes.bfloat16)
    task = task_of(base)
    factors = {key: np.asarray(value) for key, value in task.params(initial(task)).items()}
    factors |= {"blocks.mlp.expand.lora_a": a, "blocks.mlp.expand.lora_b": b}
    task.export(factors, tmp_path / "a", {})

    merge_adapter(base.folder, tmp_path / "a", tmp_path / "merged")

    merged = load_checkpoint(tmp_path / "merged", stage="base", config_type=BaseConfig)
    kernel = base.parameters[name].astype(np.float32)
    change = merged.parameters[name].astype(np.float64) - kernel
    np.testing.assert_allclose(change, 4.0 * 2 * 1e-6, rtol=0.05)
    large = np.abs(kernel) > 0.05
    rounded = merged.parameters[name].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(rounded[large], base.parameters[name][large])


def test_an_adapter_of_another_checkpoint_is_not_merged(
    trained: tuple[AdapterState, Path, Path], tmp_path: Path
) -> None:
    other = saved(tmp_path / "other", BASE, seed=1)
    with pytest.raises(CheckpointMismatch, match=r"belongs to the base of digest sha256:.* has sh"):
        merge_adapter(other.folder, trained[2], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_the_checkpoint_that_is_read_is_not_written_over(
    base: Checkpoint[Any], trained: tuple[AdapterState, Path, Path]
) -> None:
    with pytest.raises(ValueError, match="expected another folder to write"):
        merge_adapter(base.folder, trained[2], base.folder)


def _cut(folder: Path) -> None:
    file = folder / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _of_another_rank(folder: Path) -> None:
    header = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**header, "rank": 3}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter.safetensors").unlink(), "expected the file adapter.saf"),
        (_cut, "is not what was written: expected sha256:.*, as config.json says, got sha256:"),
        (_of_another_rank, r"have shapes .*: expected rank 3, as config.json says"),
        (
            lambda folder: (folder / "config.json").write_text("{}"),
            "config.json does not describe an adapter",
        ),
    ],
    ids=["missing", "cut", "another rank", "no header"],
)
def test_a_damaged_adapter_is_refused_in_one_sentence(
    damage: Any, message: str, trained: tuple[AdapterState, Path, Path], tmp_path: Path
) -> None:
    for file in trained[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(tmp_path)


def test_a_run_does_not_go_on_with_another_checkpoint_or_rank(
    base: Checkpoint[Any], trained: tuple[AdapterState, Path, Path]
) -> None:
    other = replace(base, digest="sha256:other")
    for task in (task_of(other), task_of(base, LowRank(rank=3))):
        with pytest.raises(ResumeError, match="holds a run whose adapter is"):
            train(task, LoopSettings(steps=RECIPE.steps, out=trained[1]))


def test_the_command_that_averages_checkpoints_refuses_an_adapter(
    trained: tuple[AdapterState, Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected the checkpoint of a stage"):
        average_run(trained[1], trained[2], tmp_path, decay=0.7, every=1)


@pytest.mark.parametrize(
    ("rank", "alpha", "message"),
    [(0, 16.0, "rank must be at least 1, got 0"), (2, 0.0, "alpha must be more than 0, got 0")],
)
def test_numbers_out_of_range_are_refused(rank: int, alpha: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowRank(rank=rank, alpha=alpha)


def test_a_rank_above_the_width_is_refused(base: Checkpoint[Any]) -> None:
    with pytest.raises(ValueError, match="at most the transformer's width, 16, got 17"):
        task_of(base, LowRank(rank=17))
