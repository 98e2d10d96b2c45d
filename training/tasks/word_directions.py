"""Where the projection of the text starts: at a map that makes strong what tells words apart.

The embeddings of a small text encoder vary as much with a word's neighbours as with the word, and
mostly along a few directions. Normalised, they are nearly alike, and cross-attention takes long to
find out which of them is a colour or an owl. Here the variation among embeddings of one and the
same word is made equal in all directions: what different words differ in stands out, and the part
that neighbours add, such as who is left of whom, stays.

Source: within-class whitening as in linear discriminant analysis, Fisher 1936; a start from data as
Mishkin and Matas 2016, "All You Need Is a Good Init".
"""

import numpy as np
from jaxtyping import Float, Int

WEAKEST = 0.01  # of the mean power of a direction; weaker ones are taken as noise


def telling_kernel(
    vectors: Float[np.ndarray, "M Dt"], words: Int[np.ndarray, " M"], hidden: int, *, seed: int
) -> Float[np.ndarray, "Dt D"]:
    """Returns a kernel after which embeddings of one word vary alike in all directions.

    Args:
        vectors: Embeddings of words in their texts, padding left out; at least one.
        words: Which word each is of.
        hidden: Width of the result. Where it is not that of the vectors, a random rotation follows.
        seed: Of the rotation.
    """
    vectors = vectors.astype(np.float64)
    _, which, counts = np.unique(words, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), vectors.shape[1]))
    np.add.at(means, which, vectors)
    means /= counts[:, None]
    within = vectors - means[which]
    common = means.mean(axis=0)  # what all words share tells none apart: as good as noise
    power, directions = np.linalg.eigh(within.T @ within / len(within) + np.outer(common, common))
    scales = 1.0 / np.sqrt(power + WEAKEST * power.mean())
    kernel = (directions * scales) @ directions.T
    if kernel.shape[1] != hidden:
        widest = max(kernel.shape[1], hidden)
        drawn = np.random.default_rng(seed).normal(size=(widest, widest))
        kernel = kernel @ np.linalg.qr(drawn)[0][: kernel.shape[1], :hidden]
    return kernel.astype(np.float32)
