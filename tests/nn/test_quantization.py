"""Matrices in int8: how far they are off, where they are used, and what is kept of them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from services.base.model import BaseTransformer
from services.nn.attention import SelfAttention
from services.nn.parameters import parameters_of
from services.nn.projection import Projection
from services.nn.quantization import QuantizedMatrix, product, quantized, with_weights
from services.nn.transformer import EncoderBlock, encode, stacked
from services.presets import preset
from services.runtime.checkpoints.errors import CheckpointMismatch

TINY = preset("tiny").base
RANDOM = np.random.default_rng(0)


def parameters(module: nnx.Module) -> Mapping[str, np.ndarray]:
    """A module's parameters on the host."""
    return {name: np.asarray(value) for name, value in parameters_of(module).items()}


def stack(layers: int = 3, hidden: int = 16) -> EncoderBlock:
    """A stack of encoder blocks of random weights."""
    kinds: dict[str, Any] = {"dtype": jnp.float32, "param_dtype": jnp.float32}

    def block(rngs: nnx.Rngs) -> EncoderBlock:
        attention = SelfAttention(hidden, 2, rngs=rngs, **kinds)
        return EncoderBlock(attention, hidden, 4 * hidden, rngs=rngs, **kinds)

    return stacked(block, layers, nnx.Rngs(0))


@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 1e30])
def test_every_weight_is_off_by_at_most_half_a_step_of_its_own_channel(magnitude: float) -> None:
    channels = 10.0 ** RANDOM.uniform(-3, 3, size=40) * magnitude
    matrix = (RANDOM.normal(size=(64, 40)) * channels).astype(np.float32)
    values, scale = quantized(matrix)

    assert (values.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (1, 40))
    steps = np.abs(matrix).max(axis=0, keepdims=True).astype(np.float64) / 127
    off = np.abs(values * scale.astype(np.float64) - matrix)
    assert (off <= 0.5001 * steps).all()
    assert np.array_equal(np.abs(values).max(axis=0), np.full(40, 127))


def test_weights_that_int8_can_hold_come_back_exactly() -> None:
    whole = RANDOM.integers(-127, 128, size=(32, 20))
    whole[0] = 127
    matrix = whole * (2.0 ** RANDOM.integers(-20, 20, size=20))
    values, scale = quantized(matrix.astype(np.float32))

    assert np.array_equal(values, whole)
    assert np.array_equal(values * scale, matrix)


def test_a_channel_of_zeros_stays_one() -> None:
    matrix = RANDOM.normal(size=(8, 3)).astype(np.float32)
    matrix[:, 1] = 0
    values, scale = quantized(matrix)

    assert (values[:, 1] == 0).all()
    assert np.isfinite(scale).all()


def test_a_stack_is_quantised_layer_by_layer() -> None:
    matrices = RANDOM.normal(size=(4, 16, 8)).astype(np.float32)
    values, scale = quantized(matrices)

    for layer, matrix in enumerate(matrices):
        alone = quantized(matrix)
        assert np.array_equal(values[layer], alone[0])
        assert np.array_equal(scale[layer], alone[1])


@pytest.mark.parametrize("factors", [jnp.float32, jnp.bfloat16])
def test_a_product_scales_what_the_whole_numbers_give(factors: Any) -> None:
    matrix = QuantizedMatrix((16, 8))
    values, scale = quantized(RANDOM.normal(size=(16, 8)))
    matrix.values[...], matrix.scale[...] = jnp.asarray(values), jnp.asarray(scale)
    inputs = jnp.asarray(RANDOM.normal(size=(2, 5, 16)), jnp.float32)
    made = matrix.product(inputs, factors)

    assert (made.dtype, made.shape) == (jnp.float32, (2, 5, 8))
    exact = np.asarray(inputs.astype(factors), np.float64) @ (values * scale.astype(np.float64))
    assert np.allclose(made, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_result_of_a_product_has_the_type_of_its_vectors(dtype: Any) -> None:
    plain = nnx.Param(jnp.asarray(RANDOM.normal(size=(16, 8)), jnp.bfloat16))
    int8 = QuantizedMatrix((16, 8))
    int8.values[...], int8.scale[...] = map(jnp.asarray, quantized(np.asarray(plain[...], float)))
    inputs = jnp.asarray(RANDOM.normal(size=(2, 5, 16)), dtype)
    exact = np.asarray(inputs, np.float64) @ np.asarray(plain[...], np.float64)
    for matrix, tolerance in ((plain, 2**-7), (int8, 0.1)):
        made = product(inputs, matrix, jnp.bfloat16)
        assert (made.dtype, made.shape) == (dtype, (2, 5, 8))
        assert np.allclose(np.asarray(made, np.float64), exact, atol=tolerance * 8)


def test_a_stack_of_quantised_layers_computes_with_the_rounded_weights() -> None:
    full = parameters(stack())
    rounded = {
        name: values * scale if array.ndim == 3 else array
        for name, array in full.items()
        for values, scale in [quantized(array) if array.ndim == 3 else (array, array)]
    }
    tokens = jnp.asarray(RANDOM.normal(size=(2, 4, 16)), jnp.float32)
    kinds: dict[str, Any] = {"dtype": jnp.float32}
    int8 = encode(with_weights(stack, full, weights="int8", **kinds), tokens)
    expected = encode(with_weights(stack, rounded, weights="full", **kinds), tokens)

    assert np.allclose(int8, expected, atol=1e-5)
    assert not np.allclose(int8, encode(stack(), tokens), atol=1e-4)


def test_only_the_matrices_of_blocks_are_int8_and_scales_stay_float32() -> None:
    full = parameters(BaseTransformer(TINY, rngs=nnx.Rngs(0)))
    built = with_weights(
        lambda: BaseTransformer(TINY, rngs=nnx.Rngs(0), dtype=jnp.bfloat16),
        full,
        dtype=jnp.bfloat16,
        weights="int8",
    )
    kept = {
        ".".join(map(str, path)): np.dtype(variable.dtype).name
        for path, variable in nnx.to_flat_state(nnx.state(built))
    }

    matrices = {name for name in full if name.startswith("blocks.") and name.endswith(".kernel")}
    assert len(matrices) == 7
    assert {name for name, kind in kept.items() if kind == "int8"} == {
        f"{name}.values" for name in matrices
    }
    assert {name for name, kind in kept.items() if kind == "float32"} == {
        f"{name}.scale" for name in matrices
    }
    assert {name for name, kind in kept.items() if kind == "bfloat16"} == full.keys() - matrices


def test_a_deep_stack_in_a_loop_holds_no_copy_in_full_precision() -> None:
    full = parameters(stack(layers=12, hidden=64))
    tokens = jnp.ones((1, 4, 64))

    def run(state: Any) -> Any:
        blocks = nnx.merge(graph, state)
        return jax.lax.fori_loop(0, 10, lambda _, carry: encode(blocks, carry), tokens)

    blocks = with_weights(
        lambda: stack(layers=12, hidden=64), full, dtype=jnp.float32, weights="int8"
    )
    graph, state = nnx.split(blocks)
    used = jax.jit(run).lower(state).compile().memory_analysis()
    assert used is not None
    whole = sum(array.nbytes for array in full.values())
    assert used.argument_size_in_bytes < 0.3 * whole
    assert used.temp_size_in_bytes < 0.3 * whole


def test_parameters_of_another_model_are_named_as_they_are_stored() -> None:
    full = dict(parameters(stack()))
    full["mlp.expand.kernel"] = full["mlp.expand.kernel"][:, :-1]
    with pytest.raises(CheckpointMismatch, match=r"mlp\.expand\.kernel has shape \(3, 15, 64\)"):
        with_weights(stack, full, dtype=jnp.float32, weights="int8")
    del full["mlp.expand.kernel"]
    with pytest.raises(CheckpointMismatch, match=r"missing \['mlp\.expand\.kernel'\]"):
        with_weights(stack, full, dtype=jnp.float32, weights="int8")


def test_weights_are_full_or_int8() -> None:
    with pytest.raises(ValueError, match="expected full or int8, got 'int4'"):
        with_weights(stack, {}, dtype=jnp.float32, weights="int4")  # type: ignore[arg-type]


def test_a_projection_with_a_bias_keeps_it() -> None:
    plain = Projection(4, 2, rngs=nnx.Rngs(0), bias_init=nnx.initializers.ones)
    assert np.allclose(plain(jnp.zeros((3, 4))), 1.0)
    plain.kernel = QuantizedMatrix((4, 2))
    assert np.allclose(plain(jnp.zeros((3, 4))), 1.0)
