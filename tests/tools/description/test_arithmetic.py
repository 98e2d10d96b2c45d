"""The formulas against what the programs really multiply."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.presets import preset
from services.superres.model import SuperresTransformer
from services.text_encoder.model import TextEncoder
from services.tokenizer import model
from services.tokenizer.model import Tokenizer
from services.tokenizer.vqgan import Vqgan
from services.tokenizer.vqgan_config import VqganConfig
from tools.description import arithmetic
from tools.description.vqgan_arithmetic import vqgan_decode, vqgan_encode

PRESETS = ("tiny", "muse-3b")


def counted(jaxpr: Any) -> int:
    """Adds up the products and convolutions of a traced program, loops included."""
    total = 0
    for equation in jaxpr.eqns:
        name, outputs = equation.primitive.name, [variable.aval for variable in equation.outvars]
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * outputs[0].size * math.prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * outputs[0].size * math.prod(kernel) // channels
        repeats = equation.params["length"] if name == "scan" else 1
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                total += repeats * counted(inner)
    return total


def program_flops(build: Callable[[], nnx.Module], method: str, *arguments: Any) -> int:
    """Counts one method of a module whose parameters are never made."""
    graph, state = nnx.split(nnx.eval_shape(build))

    def run(state: nnx.State, *inputs: Any) -> Any:
        return getattr(nnx.merge(graph, state), method)(*inputs)

    return counted(jax.make_jaxpr(run)(state, *arguments).jaxpr)


def step_flops(
    build: Callable[[], nnx.Module], tokens: Any, context: Any, gate: Any
) -> tuple[int, int, int]:
    """Counts the parts of a step: both branches and the last layer."""
    conditional = program_flops(build, "features", tokens, context, gate)
    unconditional = program_flops(build, "cfg_batch_features", tokens, context) - conditional
    whole = program_flops(build, "logits", tokens, context, gate)
    return conditional, unconditional, whole - conditional


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """Describes an array that is never made."""
    return jax.ShapeDtypeStruct(shape, dtype)


def test_a_product_counts_what_xla_counts() -> None:
    lowered = jax.jit(jnp.matmul).lower(array(24, 40), array(40, 56))
    assert arithmetic.product(24, 40, 56) == lowered.cost_analysis()["flops"] == 2 * 24 * 40 * 56


def test_a_decode_of_the_tiny_base_is_the_hand_count() -> None:
    # 16 tokens of 16 wide, 32 text positions, MLP 32, 32 codes, one layer.
    self_attention = 2 * 16 * 16 * 64 + 2 * (2 * 16 * 16 * 16)
    cross_attention = 2 * 16 * 16 * 32 + 2 * (2 * 16 * 32 * 16)
    mlp = 2 * (2 * 16 * 16 * 32)
    unconditional = self_attention + mlp + 2 * 16 * 16 * 16
    conditional = unconditional + cross_attention
    context = 2 * 32 * 16 * 16 + 2 * 32 * 16 * 32
    last = 2 * 16 * 16 * 32
    flops = arithmetic.base_decode(preset("tiny").base)
    assert flops == (context, conditional, unconditional, last)
    # The first of several steps is not guided; a single step is.
    assert flops.image(3) == context + 3 * (conditional + last) + 2 * unconditional
    assert flops.image(1) == context + conditional + last + unconditional


@pytest.mark.parametrize("name", PRESETS)
def test_the_text_encoder_multiplies_as_counted(name: str) -> None:
    config = preset(name).text_encoder
    flops = program_flops(
        lambda: TextEncoder(config, rngs=nnx.Rngs(0)),
        "__call__",
        array(1, config.maximum_length, dtype=jnp.int32),
        array(1, config.maximum_length, dtype=jnp.bool_),
    )
    assert arithmetic.text_encoder(config) == flops


@pytest.mark.parametrize("name", PRESETS)
def test_the_base_multiplies_as_counted(name: str) -> None:
    config = preset(name).base

    def build() -> BaseTransformer:
        return BaseTransformer(config, rngs=nnx.Rngs(0))

    text = array(1, config.text_length, config.text_hidden)
    mask = array(1, config.text_length, dtype=jnp.bool_)
    context = nnx.eval_shape(lambda text, mask: build().context(text, mask), text, mask)
    tokens, gate = array(1, config.tokens, dtype=jnp.int32), array(1, dtype=jnp.bool_)
    assert arithmetic.base_decode(config) == (
        program_flops(build, "context", text, mask),
        *step_flops(build, tokens, context, gate),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_the_superres_multiplies_as_counted(name: str) -> None:
    config = preset(name).superres

    def build() -> SuperresTransformer:
        return SuperresTransformer(config, rngs=nnx.Rngs(0))

    given = (
        array(1, config.low_tokens, dtype=jnp.int32),
        array(1, config.text_length, config.text_hidden),
        array(1, config.text_length, dtype=jnp.bool_),
    )
    context = nnx.eval_shape(lambda *inputs: build().context(*inputs), *given)
    tokens, gate = array(1, config.tokens, dtype=jnp.int32), array(1, dtype=jnp.bool_)
    assert arithmetic.superres_decode(config) == (
        program_flops(build, "context", *given),
        *step_flops(build, tokens, context, gate),
    )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("which", ["low_tokenizer", "high_tokenizer"])
def test_the_tokenizers_multiply_as_counted(
    name: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By the definition of a convolution: what a CPU makes of it multiplies less.
    monkeypatch.setattr(model, "LEAST_INPUTS", 1_000_000)
    config = getattr(preset(name), which)

    def build() -> Tokenizer:
        return Tokenizer(config, rngs=nnx.Rngs(0))

    images = array(1, config.image_size, config.image_size, 3)
    ids = array(1, config.grid, config.grid, dtype=jnp.int32)
    assert arithmetic.tokenizer_encode(config) == program_flops(build, "encode", images)
    assert arithmetic.tokenizer_decode(config) == program_flops(build, "decode", ids)


@pytest.mark.parametrize(("attention_levels", "middle_attention"), [((), False), ((0, 2), True)])
def test_published_vqgans_multiply_as_counted(
    attention_levels: tuple[int, ...], middle_attention: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "LEAST_INPUTS", 1_000_000)
    config = VqganConfig(
        image_size=32,
        stem_channels=32,
        channels=(64, 64, 96),
        residual_blocks=2,
        decoder_residual_blocks=3,
        attention_levels=attention_levels,
        middle_attention=middle_attention,
        latent_channels=12,
        codebook_size=64,
        code_dim=8,
        l2_normalised_codes=True,
        signed_pixels=False,
    )

    def build() -> Vqgan:
        return Vqgan(config, rngs=nnx.Rngs(0))

    images, ids = array(1, 32, 32, 3), array(1, 8, 8, dtype=jnp.int32)
    assert vqgan_encode(config) == program_flops(build, "encode", images)
    assert vqgan_decode(config) == program_flops(build, "decode", ids)
