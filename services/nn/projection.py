"""The linear layer of every block: full-precision or int8 weights behind one interface."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from services.nn.bf16_matmul import RoundsFactors, bf16_matmul
from services.nn.quantization import QuantizedMatrix


class Projection(nnx.Linear, RoundsFactors):
    """A linear map of the last axis, computed as one product of two matrices.

    The batch axes are flattened first. Otherwise the gradient of the weights contracts two axes at
    once, and XLA's CPU backend copies its operands: an MLP of 256 x 1024 takes 1.5 times as long.

    Attributes:
        adapter: Computes what is added to the product, from the same vectors; None adds nothing.
    """

    adapter: Callable[[Float[Array, "N D"]], Float[Array, "N M"]] | None = None

    def __call__(
        self,
        inputs: Float[Array, "*B D"],
        out_sharding: NamedSharding | PartitionSpec | None = None,
    ) -> Float[Array, "*B M"]:
        """Maps each vector; `out_sharding` as in `nnx.Linear`."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        if isinstance(self.kernel, QuantizedMatrix):
            dtype = flat.dtype if self.dtype is None else self.dtype
            factors = jnp.bfloat16 if self.bf16_factors else dtype
            mapped = self.kernel.product(flat, factors).astype(dtype)
            if self.bias is not None:
                mapped = mapped + self.bias[...].astype(dtype)
        elif self.bf16_factors:
            mapped = bf16_matmul(flat, self.kernel[...])
            if self.bias is not None:
                mapped = mapped + self.bias[...]
        else:
            mapped = super().__call__(flat, out_sharding)
        if self.adapter is not None:
            mapped = mapped + self.adapter(flat if self.dtype is None else flat.astype(self.dtype))
        return mapped.reshape(*inputs.shape[:-1], mapped.shape[-1])
