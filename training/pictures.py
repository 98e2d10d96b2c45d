"""Conversion between bytes and floats of pictures."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def to_float(images: UInt8[Array | np.ndarray, "*B h w 3"]) -> Float[Array, "*B h w 3"]:
    """Maps bytes to [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1.0


def to_uint8(images: Float[np.ndarray, "*B h w 3"]) -> UInt8[np.ndarray, "*B h w 3"]:
    """Maps [-1, 1] to bytes; what lies outside is clipped."""
    return np.round(np.clip((images + 1.0) * 127.5, 0, 255)).astype(np.uint8)
