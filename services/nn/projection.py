"""The matrix products of every layer."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from services.nn.quantization import QuantizedMatrix


class Projection(nnx.Linear):
    """A linear map of the last axis, computed as one product of two matrices.

    Left with its batch axes apart, the gradient of the weights contracts two axes at once, for
    which XLA's CPU backend copies first: on an MLP of 256 x 1024 that is half as slow again.
    """

    def __call__(
        self, inputs: Float[Array, "*B D"], out_sharding: Any = None
    ) -> Float[Array, "*B M"]:
        """Maps each vector; `out_sharding` as in `nnx.Linear`."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        if isinstance(self.kernel, QuantizedMatrix):
            dtype = flat.dtype if self.dtype is None else self.dtype
            mapped = self.kernel.product(flat, dtype)
            if self.bias is not None:
                mapped = mapped + self.bias[...].astype(dtype)
        else:
            mapped = super().__call__(flat, out_sharding)
        return mapped.reshape(*inputs.shape[:-1], mapped.shape[-1])
