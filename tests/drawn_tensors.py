"""Weights and pictures drawn from streams that are the same in every version of numpy."""

import zlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float


def drawn_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Draws weights that all matter, each from a stream of its name's own.

    Args:
        shapes: Shape of each tensor by its name: kernels as PyTorch has them, [out in height width]
            or [out in]; those called "kernel" as Flax has them, [height width in out].
    """
    return {name: _drawn(name, shape) for name, shape in shapes.items()}


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    # RandomState is numpy's legacy generator, whose streams are frozen.
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith(("embedding.weight", "codebook")):
        drawn = noise
    elif len(shape) == 1:
        drawn = 0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise
    else:
        inputs = shape[:-1] if name.endswith("kernel") else shape[1:]
        drawn = noise / np.sqrt(np.prod(inputs))
    return drawn.astype(np.float32)


def drawn_image(height: int, width: int, *, seed: int) -> Float[np.ndarray, "h w 3"]:
    """Draws an image in [-1, 1] that is smooth in places and rough in others."""
    random = np.random.RandomState(seed)
    rough = random.uniform(-1, 1, (height, width, 3))
    ramp = np.linspace(-1, 1, height)[:, None, None] * np.linspace(-1, 1, width)[None, :, None]
    share = np.linspace(0, 1, width)[None, :, None]
    return (share * rough + (1 - share) * ramp).astype(np.float32)
