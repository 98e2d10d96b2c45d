"""A decoder is fine-tuned alone: encoder and codebook stay bit for bit, and so do tokens."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from services.presets.definition import Preset
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.serialization import Checkpoint, load_checkpoint
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.engine import TokenizerEngine
from training import runs
from training.mesh import one_device
from training.recipe_changes import LossChanges, RecipeChanges
from training.sharded_step import ShardedStep
from training.tasks.tokenizer import TokenizerTask

EVERY_LOSS = LossChanges(
    adversarial_start_step=0, discriminator_width=4, adaptive_adversarial=True, lecam=0.1, r1=0.1
)
Finetuning = Callable[..., TokenizerTask]


def read(folder: Path) -> Checkpoint[TokenizerConfig]:
    """Reads a tokenizer's checkpoint."""
    return load_checkpoint(folder, stage="tokenizer", config_type=TokenizerConfig)


@pytest.fixture(scope="module")
def plain(
    small_preset: Preset, artwork: Path, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint[TokenizerConfig]:
    """The checkpoint of a tokenizer with the preset's decoder."""
    task = runs.tokenizer_task(small_preset, artwork, artwork / "run", resolution="low", seed=0)
    folder = tmp_path_factory.mktemp("plain")
    task.export(task.params(task.initial_state({})), folder, {"preset": "tiny"})
    return read(folder)


@pytest.fixture(scope="module")
def finetuning(
    small_preset: Preset, artwork: Path, plain: Checkpoint[TokenizerConfig]
) -> Finetuning:
    """Returns the task of a decoder of given shape for that tokenizer."""

    def start(**changes: int) -> TokenizerTask:
        return runs.tokenizer_task(
            small_preset,
            artwork,
            artwork / "run",
            resolution="low",
            seed=5,
            changes=RecipeChanges(steps=2, learning_rate=1e-2),
            loss_changes=EVERY_LOSS,
            initialize_from=plain.folder,
            finetune_decoder=True,
            **changes,
        )

    return start


def test_a_wider_decoder_serves_in_the_plain_ones_place(
    finetuning: Finetuning, plain: Checkpoint[TokenizerConfig], tmp_path: Path
) -> None:
    task = finetuning(decoder_base_channels=16, decoder_residual_blocks=2)
    state = jax.jit(task.initial_state)(task.given)
    before = {name: np.asarray(value) for name, value in task.params(state).items()}
    batch, train_step = task.batch(0), ShardedStep(task, one_device())
    for step in range(2):
        state, metrics = train_step(state, batch, step, task.phase(step))
    assert {"adversarial_weight", "lecam", "r1", "usage", "perplexity"} <= metrics.keys()
    assert not {"revived", "commitment"} & metrics.keys()
    after = {name: np.asarray(value) for name, value in task.params(state).items()}
    changed = {name for name in after if np.any(after[name] != before[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)

    task.export(after, tmp_path, {"preset": "tiny"})

    tuned = read(tmp_path)
    assert (tuned.config.decoder_base_channels, tuned.config.decoder_residual_blocks) == (16, 2)
    kept = {name for name in plain.parameters if not name.startswith("decoder.")}
    assert kept == {name for name in tuned.parameters if not name.startswith("decoder.")}
    for name in kept:
        assert tuned.parameters[name].tobytes() == plain.parameters[name].tobytes(), name
    assert tuned.fingerprint == plain.fingerprint
    assert (plain.record["frozen"], tuned.record["frozen"]) == (None, task.shape["frozen"])
    served, ours = TokenizerEngine(plain), TokenizerEngine(tuned)
    ids = np.asarray(served.start_encode(batch[0]))
    np.testing.assert_array_equal(ours.start_encode(batch[0]), ids)
    assert ours.start_decode(ids).shape == batch[0].shape


def test_nothing_frozen_has_an_optimizer_state_or_is_among_what_is_trained(
    finetuning: Finetuning,
) -> None:
    task = finetuning(decoder_base_channels=16)
    state = jax.eval_shape(task.initial_state, task.given)
    assert all(name.startswith("decoder.") for name in state.tokenizer.params)
    leaves = jax.tree_util.tree_leaves_with_path(state.tokenizer.opt_state)
    names = {
        key.key for path, _ in leaves for key in path if isinstance(key, jax.tree_util.DictKey)
    }
    assert names == state.tokenizer.params.keys()


def test_a_decoder_of_the_same_shape_goes_on_from_the_given_one(
    finetuning: Finetuning, plain: Checkpoint[TokenizerConfig]
) -> None:
    given = finetuning().given
    assert given.keys() == plain.parameters.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(value, plain.parameters[name].astype(np.float32))
    assert not any(
        name.startswith("decoder.") for name in finetuning(decoder_base_channels=16).given
    )


def test_a_run_does_not_go_on_over_another_encoder(
    finetuning: Finetuning, small_preset: Preset, artwork: Path
) -> None:
    plain_shape = runs.tokenizer_task(
        small_preset, artwork, artwork / "run", resolution="low", seed=5
    ).shape
    assert finetuning().shape["frozen"].startswith("tokenizer:")
    assert plain_shape["frozen"] is None


def test_an_encoder_of_another_shape_is_refused(
    artwork: Path, small_preset: Preset, plain: Checkpoint[TokenizerConfig]
) -> None:
    with pytest.raises(CheckpointMismatch, match=r"another shape, .*image_size=16.*image_size=32"):
        runs.tokenizer_task(
            small_preset,
            artwork,
            artwork / "run",
            resolution="high",
            seed=0,
            initialize_from=plain.folder,
            finetune_decoder=True,
        )


def test_a_decoder_of_no_checkpoint_is_refused(artwork: Path, small_preset: Preset) -> None:
    with pytest.raises(
        ValueError, match=r"--finetune-decoder expects .*name its folder with --from"
    ):
        runs.tokenizer_task(
            small_preset, artwork, artwork / "run", resolution="low", seed=0, finetune_decoder=True
        )
