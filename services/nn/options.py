"""Options that every layer takes, handed on from a model to its layers."""

from typing import TypedDict

from flax import nnx
from jax.typing import DTypeLike


class LayerOptions(TypedDict):
    """Keyword arguments of a layer.

    Attributes:
        rngs: Source of the initial parameters.
        dtype: Type of the factors of matrix products: float32 or bfloat16.
        param_dtype: Type of the parameters.
    """

    rngs: nnx.Rngs
    dtype: DTypeLike
    param_dtype: DTypeLike
