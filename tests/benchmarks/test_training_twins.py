"""PyTorch's twins of the training steps compute our losses and our gradients."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.presets import preset
from training.mesh import one_device
from training.optimizers import Parameters
from training.pictures import to_float
from training.recipes import RECIPES
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masking import keep_text, random_masks
from training.tasks.reconstruction import Reconstruction, loss_gradients, reconstruct
from training.tasks.tokenizer import TokenizerTask

TINY = preset("tiny")
RECIPE = RECIPES["tiny"]


def check_gradients(network: Any, ours: Mapping[str, Any]) -> None:
    """Compares the gradients of a twin with ours under its names."""
    theirs = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert theirs.keys() == ours.keys()
    for name, gradient in theirs.items():
        np.testing.assert_allclose(gradient, ours[name], rtol=1e-3, atol=2e-6, err_msg=name)


def check_a_step_moves(twin: Any) -> None:
    """Checks that a step changes every parameter of a twin."""
    before = [each.detach().clone() for each in twin.network.parameters()]
    twin.step()
    moved = zip(before, twin.network.parameters(), strict=True)
    assert not any(bool((old == new).all()) for old, new in moved)


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_a_transformer_s_twin_has_our_loss_and_gradients(stage: str) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.peers.torch_layers import converted
    from benchmarks.peers.torch_training import MaskedTokensTwin
    from benchmarks.training_contests import examples_of

    config = TINY.base if stage == "base" else TINY.superres
    batch = examples_of(config, 4)
    lengths = jnp.array([16, 3, 9, 1])[:, None]
    batch = batch._replace(text_mask=jnp.arange(batch.text.shape[1]) < lengths)
    ours = MaskedTokensStep(config, RECIPE.base, one_device())
    parameters = ours.initial_parameters({})
    # A step that drops a caption; masks and drops are drawn as `gradients` draws them.
    for step in range(20):
        key = jax.random.fold_in(jax.random.key(ours.seed), step)
        mask_key, text_key = jax.random.split(key)
        conditional = np.asarray(keep_text(text_key, 4))
        if not conditional.all():
            break
    hidden = np.asarray(random_masks(mask_key, 4, config.tokens))
    gradients, metrics = jax.jit(ours.gradients)(parameters, {}, batch, step)

    twin = MaskedTokensTwin(config, RECIPE.base, parameters, batch, compiled=False)
    loss = twin.loss(torch.tensor(hidden), torch.tensor(conditional))
    loss.backward()

    assert not conditional.all()
    assert loss.item() == pytest.approx(float(metrics["loss"]), rel=1e-5)
    check_gradients(twin.network, converted(gradients))
    check_a_step_moves(twin)


def test_a_tokenizer_s_twin_has_our_loss_and_gradients() -> None:
    pytest.importorskip("torch")
    from benchmarks.peers.torch_tokenizer import converted
    from benchmarks.peers.torch_training import TokenizerTwin

    config, recipe = TINY.low_tokenizer, RECIPE.low_tokenizer
    losses = replace(RECIPE.tokenizer_losses, edges=0.3)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    ours = TokenizerTask(config, recipe, losses, lambda _: images, resolution="low")
    parameters = ours.params(ours.initial_state({}))

    def forward(params: Parameters) -> Reconstruction:
        return reconstruct(ours._tokenizer(params), to_float(images), losses, decoder_alone=False)

    gradients, _, metrics = jax.jit(
        lambda params: loss_gradients(forward, params, to_float(images), losses)
    )(parameters)

    twin = TokenizerTwin(config, recipe, losses, parameters, images, compiled=False)
    loss = twin.loss()
    loss.backward()

    assert loss.item() == pytest.approx(float(metrics["loss"]), rel=1e-5)
    check_gradients(twin.network, converted(gradients))
    check_a_step_moves(twin)
