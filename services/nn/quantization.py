"""Weight-only int8 quantisation: a quarter of float32's memory, half of bfloat16's.

Each output channel (a column) of a matrix is scaled so that its largest number is 127, and rounded.
A product multiplies the unquantised activations with the int8 numbers, which bfloat16 holds
exactly, and scales its result: the full-precision matrix never exists on the device.

Only the matrices of the blocks are quantised: 98.6% of the parameters of muse-3b's base, 97.2% of
T5-XXL's. Embeddings, norms, biases and the few matrices outside the blocks keep their precision.

Where the layers are unrolled (`FEW_LAYERS` of services/nn/transformer.py), XLA may still hoist the
conversion from int8 to floats out of a loop of decoding steps; of a scanned stack it converts one
layer at a time.

Source: symmetric absmax quantisation as in Dettmers et al. 2022, "LLM.int8()", section 2, here a
channel at a time and without quantised activations.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
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
    """Rounds a matrix of finite numbers, or a stack of them, to int8 on the host.

    Returns:
        The int8 numbers and a float32 scale for each output. Their product differs from `matrix`
        by at most half a scale, which is 1/254 of the largest number of that output.
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
    """An int8 matrix with a scale for each output, in place of a matrix's `nnx.Param`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Makes a matrix of zeros, [*L, D, M]; L is the layer axis of a stack."""
        self.values = nnx.Variable(jnp.zeros(shape, jnp.int8))
        self.scale = nnx.Variable(jnp.ones((*shape[:-2], 1, shape[-1]), jnp.float32))

    def product(self, inputs: Float[Array, "*B D"], factors: DTypeLike) -> Float[Array, "*B M"]:
        """Multiplies vectors, of type `factors` in the product, with the matrix of one layer.

        Returns:
            The float32 sums, scaled.
        """
        sums = jnp.matmul(
            inputs.astype(factors),
            self.values[...].astype(factors),
            preferred_element_type=jnp.float32,
        )
        return sums * self.scale[...][0]


Matrix = nnx.Param | QuantizedMatrix


def product(
    inputs: Float[Array, "*B D"], matrix: Matrix, factors: DTypeLike
) -> Float[Array, "*B M"]:
    """Multiplies vectors with a plain or a quantised matrix of one layer.

    Args:
        inputs: Vectors, of the type that the result has too.
        matrix: The matrix.
        factors: Type of both in the product.
    """
    dtype = inputs.dtype
    if isinstance(matrix, QuantizedMatrix):
        return matrix.product(inputs, factors).astype(dtype)
    return jnp.matmul(
        inputs.astype(factors), matrix[...].astype(factors), preferred_element_type=dtype
    )


def with_weight_format(build: Callable[[], Module], weights: Weights) -> Callable[[], Module]:
    """Returns a function that builds the module of `build` with another format of weights.

    "full" changes nothing; "int8" quantises the matrices of its stacks of layers.

    Raises:
        ValueError: `weights` is neither.
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
    array: Callable[[np.ndarray | jax.Array, DTypeLike], np.ndarray | jax.Array] = jnp.asarray,
) -> Module:
    """Builds a module around given parameters, quantised on the way if `weights` is "int8".

    The arguments are those of `with_parameters` and `with_weight_format`.

    Raises:
        CheckpointMismatch: a parameter is missing, unknown, or of another shape.
        ValueError: `weights` is neither "full" nor "int8".
    """
    build_served = with_weight_format(build, weights)
    if weights == "full":
        return with_parameters(build, parameters, dtype=dtype, array=array)
    abstract = nnx.eval_shape(build)
    check_parameters(abstract, parameters)
    stacked = _stacked_matrices(abstract)
    served: dict[str, np.ndarray] = {}
    for name, parameter in parameters.items():
        if name in stacked:
            served[f"{name}.values"], served[f"{name}.scale"] = quantized(parameter)
        else:
            served[name] = parameter
    return with_parameters(build_served, served, dtype=dtype, array=array)


def _stacked_matrices(module: nnx.Module) -> set[str]:
    """Returns the dotted paths of the matrices of a module's stacks of layers."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {
        ".".join(map(str, path)) for path, variable in flat if len(variable.shape) == STACKED_AXES
    }


def _quantize_stacks(module: nnx.Module) -> None:
    """Replaces the matrices of a module's stacks by quantised ones."""
    for _, owner in list(nnx.iter_modules(module)):
        for name, value in list(vars(owner).items()):
            if isinstance(value, nnx.Param) and len(value.shape) == STACKED_AXES:
                setattr(owner, name, QuantizedMatrix(value.shape))
