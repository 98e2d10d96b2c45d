"""Matrices in int8: a quarter of float32's memory, half of bfloat16's, at a small error.

Only weights are quantised: each output channel (a column) of a matrix is scaled so that its largest
number is 127, and rounded. A product takes the activations as they are with the int8 numbers, which
bfloat16 holds exactly, and scales its result: the full matrix never exists on the device.

What is quantised is the matrices of the blocks: 98.6% of the parameters of muse-3b's base, 97.2% of
T5-XXL's. Embeddings, norms, biases and the few products before and after the blocks stay.

XLA may still hoist what turns int8 into floats out of a loop of decoding steps where the layers
are unrolled (`FEW_LAYERS` of services/nn/transformer.py); of a scanned stack it keeps one layer.

Source: symmetric absmax quantisation as in Dettmers et al. 2022, "LLM.int8()", section 2, here a
channel at a time and without quantised activations.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8

from services.nn.parameters import check_parameters, with_parameters
from services.runtime.checkpoints.precision import Weights, check_weights

Module = TypeVar("Module", bound=nnx.Module)
LARGEST = 127  # of int8, leaving out -128: symmetric
STACKED_AXES = 3  # layer, input, output: what a stack has of every matrix, and of nothing else


def quantized(
    matrix: Float[np.ndarray, "*L D M"],
) -> tuple[Int8[np.ndarray, "*L D M"], Float[np.ndarray, "*L 1 M"]]:
    """Rounds a matrix, or a stack of them, to int8 on the host.

    Args:
        matrix: Finite numbers, inputs by outputs.

    Returns:
        The int8 numbers and a float32 scale for each output. Their product is off by at most half
        a scale, which is 1/254 of the largest number of that output.
    """
    values = np.empty(matrix.shape, np.int8)
    scale = np.empty((*matrix.shape[:-2], 1, matrix.shape[-1]), np.float32)
    for layer in np.ndindex(matrix.shape[:-2]):  # one by one: float32 copies of all would not fit
        wide = matrix[layer].astype(np.float32)
        largest = np.abs(wide).max(axis=0, keepdims=True) / np.float32(LARGEST)
        scale[layer] = np.where(largest > 0, largest, 1.0)  # a column of zeros stays one
        values[layer] = np.clip(np.rint(wide / scale[layer]), -LARGEST, LARGEST)
    return values, scale


class QuantizedMatrix(nnx.Module):
    """What stands in for a matrix's `nnx.Param`: int8 numbers, and a scale for each output."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Makes a matrix of zeros, [*L, D, M]; a leading axis is of layers."""
        self.values = nnx.Variable(jnp.zeros(shape, jnp.int8))
        self.scale = nnx.Variable(jnp.ones((*shape[:-2], 1, shape[-1]), jnp.float32))

    def product(self, inputs: Float[Array, "*B D"], dtype: DTypeLike) -> Float[Array, "*B M"]:
        """Multiplies vectors with the matrix of a single layer.

        Args:
            inputs: In `dtype`.
            dtype: Of the factors and of the result; sums and scales are float32.
        """
        sums = jnp.matmul(
            inputs, self.values[...].astype(dtype), preferred_element_type=jnp.float32
        )
        return (sums * self.scale[...][0]).astype(dtype)


Matrix = nnx.Param | QuantizedMatrix


def product(inputs: Float[Array, "*B D"], matrix: Matrix, dtype: DTypeLike) -> Float[Array, "*B M"]:
    """Multiplies vectors with a matrix, in whichever way it is kept.

    Args:
        inputs: In `dtype`.
        matrix: Of a single layer.
        dtype: Of the factors and of the result.
    """
    if isinstance(matrix, QuantizedMatrix):
        return matrix.product(inputs, dtype)
    return inputs @ matrix[...].astype(dtype)


def keeping(build: Callable[[], Module], weights: Weights) -> Callable[[], Module]:
    """Returns what makes the module that `build` makes, its weights kept in the way asked for.

    Args:
        build: Makes the module.
        weights: "full", or "int8" for the matrices of its stacks of layers.

    Raises:
        ValueError: there is no such way to keep weights.
    """
    check_weights(weights)
    if weights == "full":
        return build

    def build_quantized() -> Module:
        module = build()
        _quantize_stacks(module)
        return module

    return build_quantized


def with_weights(
    build: Callable[[], Module],
    parameters: Mapping[str, np.ndarray],
    *,
    dtype: DTypeLike,
    weights: Weights,
    array: Callable[[Any, DTypeLike], Any] = jnp.asarray,
) -> Module:
    """Builds a module around given parameters, as `with_parameters`, in the precision asked for.

    Args:
        build: Makes the module; only its shapes are used.
        parameters: Arrays by dotted path, on the host; exactly those the module has.
        dtype: What float parameters are cast to.
        weights: As of `keeping`.
        array: As of `with_parameters`.

    Raises:
        CheckpointMismatch: a parameter is missing, unknown, or of another shape.
        ValueError: there is no such way to keep weights.
    """
    built = keeping(build, weights)
    if built is build:
        return with_parameters(build, parameters, dtype=dtype, array=array)
    abstract = nnx.eval_shape(build)
    check_parameters(abstract, parameters)
    stacked = _stacked_matrices(abstract)
    kept: dict[str, np.ndarray] = {}
    for name, parameter in parameters.items():
        if name in stacked:
            kept[f"{name}.values"], kept[f"{name}.scale"] = quantized(parameter)
        else:
            kept[name] = parameter
    return with_parameters(built, kept, dtype=dtype, array=array)


def _stacked_matrices(module: nnx.Module) -> set[str]:
    """Names the matrices of a module's stacks of layers."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {
        ".".join(map(str, path)) for path, variable in flat if len(variable.shape) == STACKED_AXES
    }


def _quantize_stacks(module: nnx.Module) -> None:
    """Puts quantised matrices in the place of those of a module's stacks."""
    for _, owner in list(nnx.iter_modules(module)):
        for name, value in list(vars(owner).items()):
            if isinstance(value, nnx.Param) and len(value.shape) == STACKED_AXES:
                setattr(owner, name, QuantizedMatrix(value.shape))
