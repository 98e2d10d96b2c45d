"""The tokenizer's task: its losses together, its perceptual network, and its convolutions."""

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.nn.parameters import with_parameters
from services.presets.definition import Preset
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import Convolution, Tokenizer
from training import runs
from training.mesh import one_device
from training.optimizers import Parameters
from training.perceptual.backbones import VGG16
from training.perceptual.errors import LpipsError
from training.perceptual.files import read_lpips, write_lpips
from training.pictures import to_float
from training.recipe_changes import LossChanges, RecipeChanges
from training.recipes import RECIPES
from training.sharded_step import ShardedStep
from training.tasks.adversarial_losses import generator_loss
from training.tasks.reconstruction import (
    LAST_KERNEL,
    Reconstruction,
    loss_gradients,
    reconstruct,
)
from training.tasks.tokenizer import TokenizerTask
from training.tasks.tokenizer_losses import TokenizerLosses, reconstruction_loss


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a random network of two channels."""
    generator = np.random.default_rng(0)
    weights = {f"heads.{index}": np.ones(2) for index in range(len(VGG16.compared))}
    for index in range(VGG16.convolutions):
        shape = (3, 3, 2 if index else 3, 2)
        weights[f"convolutions.{index}.kernel"] = 0.4 * generator.standard_normal(shape)
        weights[f"convolutions.{index}.bias"] = np.full(2, 0.1)
    file = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    single = {name: array.astype(np.float32) for name, array in weights.items()}
    write_lpips(file, VGG16, single, {})
    return file


def task(
    preset: Preset,
    artwork: Path,
    perceptual: Path | None = None,
    losses: LossChanges = LossChanges(),  # noqa: B008 - frozen
) -> TokenizerTask:
    """The task of the low tokenizer."""
    return runs.tokenizer_task(
        preset,
        artwork,
        artwork / "run",
        resolution="low",
        seed=0,
        changes=RecipeChanges(steps=2),
        loss_changes=losses,
        perceptual=perceptual,
    )


def test_a_step_adds_the_weighted_distance_and_reports_it(
    small_preset: Preset, artwork: Path, lpips: Path
) -> None:
    trained = task(small_preset, artwork, lpips)
    batch, state = trained.batch(0), trained.initial_state(trained.given)
    images = to_float(batch)

    @jax.jit
    def made(params: Parameters) -> Reconstruction:
        tokenizer = trained._tokenizer(params)
        return reconstruct(tokenizer, images, trained.losses, decoder_alone=False)

    fake, quantization, *_ = made(state.tokenizer.params)

    _, reported = ShardedStep(trained, one_device())(state, batch, 0, trained.phase(0))

    assert trained._perceptual is not None
    distance = float(np.mean(trained._perceptual(fake, images)))
    plain, _ = reconstruction_loss(fake, images, trained.losses, None)
    assert distance > 0
    np.testing.assert_allclose(reported["perceptual"], distance, rtol=1e-2)
    expected = float(plain + quantization) + 0.05 * distance
    np.testing.assert_allclose(reported["loss"], expected, rtol=1e-4)
    assert {"usage", "perplexity", "psnr_db", "commitment", "revived"} <= reported.keys()
    assert 0 < float(reported["usage"]) <= 1


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_adversarial_loss_has_the_constant_or_the_adaptive_weight(
    small_tokenizer: TokenizerConfig, adaptive: bool
) -> None:
    losses = TokenizerLosses(adversarial=0.1, adaptive_adversarial=adaptive, discriminator_width=4)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)
    recipe = RECIPES["tiny"].low_tokenizer
    trained = TokenizerTask(
        small_tokenizer, recipe, losses, lambda _: np.zeros(0), resolution="low"
    )
    state = trained.initial_state({})
    params = state.tokenizer.params
    score = partial(trained._adversary.scores, state.discriminator.network.params)

    def made(params: Parameters) -> Reconstruction:
        return reconstruct(trained._tokenizer(params), images, losses, decoder_alone=False)

    def parts(params: Parameters) -> tuple[jax.Array, jax.Array, jax.Array]:
        fake, quantization, *_ = made(params)
        reconstruction, _ = reconstruction_loss(fake, images, losses, None)
        return reconstruction, generator_loss(score(fake)), quantization

    @jax.jit
    def directly(params: Parameters) -> tuple[jax.Array, Parameters]:
        def norm(part: int) -> jax.Array:
            of_kernel = jax.grad(lambda kernel: parts(params | {LAST_KERNEL: kernel})[part])
            return jnp.sqrt(jnp.sum(of_kernel(params[LAST_KERNEL]) ** 2))

        weight = 0.1 * norm(0) / (norm(1) + 1e-6) if adaptive else jnp.float32(0.1)

        def total(params: Parameters) -> jax.Array:
            reconstruction, fooling, quantization = parts(params)
            return reconstruction + weight * fooling + quantization

        return weight, jax.grad(total)(params)

    gradients, _, metrics = jax.jit(
        lambda params: loss_gradients(made, params, images, losses, score=score)
    )(params)
    weight, expected = directly(params)

    np.testing.assert_allclose(metrics["adversarial_weight"], weight, rtol=1e-4)
    assert adaptive == (abs(float(weight) - 0.1) > 1e-3)
    assert gradients.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            gradients[name], expected[name], rtol=1e-3, atol=1e-6, err_msg=name
        )


def test_a_batch_in_parts_takes_the_step_of_the_whole(small_preset: Preset, artwork: Path) -> None:
    states, losses = [], []
    for parts in (1, 2):
        execution = replace(one_device(), accumulate=parts)
        trained = runs.tokenizer_task(
            small_preset,
            artwork,
            artwork / "run",
            resolution="low",
            seed=0,
            changes=RecipeChanges(steps=2, batch_size=4),
            loss_changes=LossChanges(adversarial_start_step=0),
            execution=execution,
        )
        state, reported = ShardedStep(trained, execution)(
            trained.initial_state(trained.given), trained.batch(0), 1, trained.phase(0)
        )
        states.append(trained.params(state))
        losses.append([float(reported[name]) for name in ("loss", "discriminator", "usage")])

    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, atol=2e-5, err_msg=name)


def test_the_checkpoint_names_the_network_its_file_and_the_losses(
    small_preset: Preset, artwork: Path, lpips: Path, tmp_path: Path
) -> None:
    for name, file in (("with", lpips), ("without", None)):
        trained = task(small_preset, artwork, file, LossChanges(lecam=0.01))
        trained.export(trained.params(trained.initial_state({})), tmp_path / name, {})
    first, second = (
        json.loads((tmp_path / name / "training.json").read_text()) for name in ("with", "without")
    )

    assert second["perceptual_network"] is None
    assert first["perceptual_network"] == read_lpips(lpips).fingerprint
    assert first["perceptual_network"].startswith("lpips-vgg16:")
    assert (first["losses"]["lecam"], first["losses"]["perceptual"]) == (0.01, 0.05)


def test_each_start_without_a_network_warns_unless_the_weight_is_0(
    small_preset: Preset, artwork: Path, lpips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        task(small_preset, artwork)
        task(small_preset, artwork)
    assert len(caplog.records) == 2
    assert "a weight of 0.05 and no network was given" in caplog.text
    assert "docs/training.md" in caplog.text
    caplog.clear()

    task(small_preset, artwork, lpips)
    task(small_preset, artwork, losses=LossChanges(perceptual=0.0))

    assert caplog.records == []


def test_a_missing_network_is_refused_before_anything_is_trained(
    small_preset: Preset, artwork: Path, tmp_path: Path
) -> None:
    with pytest.raises(LpipsError, match=r"training\.perceptual convert"):
        task(small_preset, artwork, tmp_path / "missing.safetensors")


def test_a_checkpoint_of_another_shape_is_no_start(
    small_preset: Preset, artwork: Path, tmp_path: Path
) -> None:
    first = task(small_preset, artwork)
    params = first.params(first.initial_state({}))
    first.export(params, tmp_path, {})
    start = partial(
        runs.tokenizer_task, small_preset, artwork, artwork / "run", resolution="low", seed=1
    )
    again = start(initialize_from=tmp_path).given
    assert again.keys() == params.keys()
    np.testing.assert_allclose(again[LAST_KERNEL], params[LAST_KERNEL], rtol=1e-2)
    with pytest.raises(CheckpointMismatch, match=r"another shape, .*decoder_base_channels=8"):
        start(initialize_from=tmp_path, decoder_base_channels=16)


def test_training_multiplies_matrices_in_all_convolutions_and_serving_agrees(
    small_preset: Preset, artwork: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.tokenizer.model.LEAST_WINOGRAD_INPUTS", 8)
    trained = task(small_preset, artwork)
    images = to_float(trained.batch(0))
    parameters = trained.initial_state({}).tokenizer.params
    mine = trained._tokenizer(parameters)
    served = with_parameters(
        lambda: Tokenizer(small_preset.low_tokenizer, rngs=nnx.Rngs(0)), parameters
    )
    products = [
        [layer.in_products for _, layer in nnx.iter_graph(model) if isinstance(layer, Convolution)]
        for model in (mine, served)
    ]

    assert all(products[0])
    assert not all(products[1])
    np.testing.assert_allclose(mine.encoder(images), served.encoder(images), atol=1e-4)


@pytest.mark.parametrize("remat", [False, True])
def test_the_backward_pass_computes_every_layer_again_where_asked_to(
    small_preset: Preset, artwork: Path, remat: bool
) -> None:
    execution = replace(one_device(), remat=remat)
    trained = runs.tokenizer_task(
        small_preset, artwork, artwork / "run", resolution="low", seed=0, execution=execution
    )
    step = ShardedStep(trained, execution)
    traced = step.trace(step.template, trained.batch(0), 0, "reconstruction")
    coders = trained._build().encoder, trained._build().decoder
    layers = sum(len(coder.layers) for coder in coders)
    assert str(traced.jaxpr).count("differentiated=True") == remat * layers
