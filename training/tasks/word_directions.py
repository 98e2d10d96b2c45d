"""Where the projection of the text starts: at a map that makes all its directions equally strong.

The embeddings of a small text encoder vary mostly along a few directions that tell kinds of words
apart; which colour or object a word names lies in weak ones. Normalised keys of such embeddings are
nearly alike, and cross-attention takes long to tell them apart. Whitened, it starts with all of it.

Source: Kessy et al. 2018, "Optimal Whitening and Decorrelation" (ZCA); a start from data as
Mishkin and Matas 2016, "All You Need Is a Good Init".
"""

import numpy as np
from jaxtyping import Float

WEAKEST = 0.01  # of the mean power of a direction; weaker ones are taken as noise


def whitening_kernel(
    vectors: Float[np.ndarray, "M Dt"], hidden: int, *, seed: int
) -> Float[np.ndarray, "Dt D"]:
    """Returns a kernel that maps vectors to others whose directions have about the same power.

    Args:
        vectors: Embeddings of words, padding left out; as many as there are, at least one.
        hidden: Width of the result. Where it is not that of the vectors, a random rotation follows.
        seed: Of the rotation.
    """
    power, directions = np.linalg.eigh(vectors.T @ vectors / len(vectors))
    scales = 1.0 / np.sqrt(power + WEAKEST * power.mean())
    kernel = (directions * scales) @ directions.T
    if kernel.shape[1] != hidden:
        widest = max(kernel.shape[1], hidden)
        drawn = np.random.default_rng(seed).normal(size=(widest, widest))
        kernel = kernel @ np.linalg.qr(drawn)[0][: kernel.shape[1], :hidden]
    return kernel.astype(np.float32)
