"""Low-rank adapters beside the projections of a model: x W + ((x A) * scale) B.

The factors of all adapters of a server are concatenated along the rank. The scale has a number for
each column of A, and 0 leaves a column out: so one program of one shape computes a decode with any
of the adapters, or with none.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from services.nn.projection import Projection

Module = TypeVar("Module", bound=nnx.Module)
Factors = Mapping[str, tuple[Float[np.ndarray, "*L D R"], Float[np.ndarray, "*L R M"]]]
KERNEL = ".kernel"
MATRICES = (((1,), (0,)), ((), ()))  # the contracted axes of a product of two matrices


class AdapterScale(nnx.Variable):
    """Scale of each column of A. `with_adapter_scale` sets it, for one decode at a time."""


class LowRankProduct(nnx.Module):
    """The product of an adapter, which a `Projection` adds to its own."""

    def __init__(
        self,
        a: Float[Array | np.ndarray, "*L D R"],
        b: Float[Array | np.ndarray, "*L R M"],
        scale: float | AdapterScale,
        product: Callable[..., Array] = jax.lax.dot_general,
    ) -> None:
        """Takes the factors of a matrix, or of a stack of a layer's matrices each.

        Args:
            a: The factor next to the inputs.
            b: The factor next to the outputs.
            scale: Of x A; either one number, or one for each column.
            product: Multiplies two matrices; called as `jax.lax.dot_general` is.
        """
        self.lora_a, self.lora_b = nnx.Param(a), nnx.Param(b)
        self.scale, self.product = scale, product

    def __call__(self, inputs: Float[Array, "N D"]) -> Float[Array, "N M"]:
        """Returns ((x A) * scale) B of each vector x, in the type of the vectors.

        Where each of several rows has a scale of its own, its vectors come one after the other.
        """
        dtype = inputs.dtype
        scale = self.scale if isinstance(self.scale, float) else self.scale[...]
        if not isinstance(scale, float) and scale.ndim == 2:
            scale = jnp.repeat(scale, len(inputs) // len(scale), axis=0)
        inner = self.product(inputs, self.lora_a[...].astype(dtype), MATRICES)
        # A column that overflows must not reach decodes that leave it out: infinity * 0 is NaN.
        scaled = jnp.where(scale == 0, 0, inner * scale).astype(dtype)
        return self.product(scaled, self.lora_b[...].astype(dtype), MATRICES)


def projections(model: nnx.Module) -> Iterator[tuple[str, Projection]]:
    """Yields each projection of a model, and its dotted path such as "blocks.mlp.expand"."""
    for path, module in list(nnx.iter_graph(model)):
        if isinstance(module, Projection):
            yield ".".join(map(str, path)), module


def with_adapters(
    model: Module,
    factors: Factors,
    *,
    dtype: DTypeLike = jnp.float32,
    array: Callable[[np.ndarray, DTypeLike], np.ndarray | Array] = jnp.asarray,
) -> Module:
    """Adds adapters, of scale 0, to the projections of a model; returns the model.

    Args:
        model: Its matrices may be int8.
        factors: A and B by the name of the matrix, such as "blocks.mlp.expand.kernel". All have the
            same rank.
        dtype: Type of the factors on the device.
        array: Makes an array of a type, as in `services.nn.parameters.with_parameters`.
    """
    for path, projection in projections(model):
        if path + KERNEL in factors:
            a, b = (array(factor, dtype) for factor in factors[path + KERNEL])
            scale = AdapterScale(array(np.zeros((*a.shape[:-2], a.shape[-1])), jnp.float32))
            projection.adapter = LowRankProduct(a, b, scale)
    return model


def with_adapter_scale(parameters: nnx.State, scale: Float[Array, "*B R"]) -> nnx.State:
    """Returns the parameters of a model with the scale of its adapters set, in every layer.

    Args:
        parameters: Of a model with adapters, or without.
        scale: Of every row, or of each of B rows.
    """
    return nnx.from_flat_state(
        (
            path,
            variable.replace(jnp.broadcast_to(scale, (*variable.shape[:-1], *scale.shape)))
            if isinstance(variable, AdapterScale)
            else variable,
        )
        for path, variable in nnx.to_flat_state(parameters)
    )
