"""Initial value of the text projection: whitening of the embeddings within each word.

The embeddings of a small text encoder vary as much with a word's neighbours as with the word, and
mostly along a few directions. Normalised, they are nearly alike, and cross-attention takes many
steps to separate a colour from an owl. Whitening makes the variation among embeddings of one word
equal in all directions: differences between words stand out, and what neighbours add, such as a
relation of two objects, remains.

Source: within-class whitening as in linear discriminant analysis, Fisher 1936; a start from data as
Mishkin and Matas 2016, "All You Need Is a Good Init".
"""

import numpy as np
from jaxtyping import Float, Int

WEAKEST = 0.01  # share of the mean power of a direction below which a direction is noise


def whitening_init(
    vectors: Float[np.ndarray, "M Dt"], words: Int[np.ndarray, " M"], hidden: int, *, seed: int
) -> Float[np.ndarray, "Dt D"]:
    """Returns a kernel that whitens embeddings within each word.

    Args:
        vectors: Embeddings of the words of some texts, without padding; at least one.
        words: Token id of each embedding.
        hidden: Output width; a random rotation follows where it differs from the input width.
        seed: Seed of that rotation.
    """
    vectors = vectors.astype(np.float64)
    _, which, counts = np.unique(words, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), vectors.shape[1]))
    np.add.at(means, which, vectors)
    means /= counts[:, None]
    within = vectors - means[which]
    common = means.mean(axis=0)  # all words share it, so it distinguishes none
    power, directions = np.linalg.eigh(within.T @ within / len(within) + np.outer(common, common))
    scales = 1.0 / np.sqrt(power + WEAKEST * power.mean())
    kernel = (directions * scales) @ directions.T
    if kernel.shape[1] != hidden:
        widest = max(kernel.shape[1], hidden)
        drawn = np.random.default_rng(seed).normal(size=(widest, widest))
        kernel = kernel @ np.linalg.qr(drawn)[0][: kernel.shape[1], :hidden]
    return kernel.astype(np.float32)
