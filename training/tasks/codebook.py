"""Upkeep of a codebook: how often each code is used, and new values for codes that are not.

Codes that hardly anything was nearest to lately become encoder outputs of the current batch, so
that no share of the codebook collapses. A new code has a fair share on credit, which fades as fast
as what was counted: it has that long to win a share of its own.

Source: Dhariwal et al. 2020, "Jukebox", section 3; Arthur and Vassilvitskii 2007, "k-means++",
section 2.2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

NEVER = -(2**30)  # a step long before the first


class CodebookUse(NamedTuple):
    """How often each code was the nearest one.

    Attributes:
        shares: Running mean of each code's share of positions.
        credit: What a code has on top of that since it got its value.
        last_used: Step at which it was last the nearest to something.
    """

    shares: Float[Array, " V"]
    credit: Float[Array, " V"]
    last_used: Int[Array, " V"]


def new_codebook_use(codes: int) -> CodebookUse:
    """Returns the use before the first step: nothing was counted, every code has a fair credit."""
    return CodebookUse(
        shares=jnp.zeros(codes),
        credit=jnp.full(codes, 1.0 / codes),
        last_used=jnp.full(codes, NEVER, jnp.int32),
    )


def count_use(
    use: CodebookUse, ids: Int[Array, "B h w"], step: Int[Array, ""], *, decay: float
) -> CodebookUse:
    """Returns the use after a step whose positions got these codes.

    Args:
        use: Before the step.
        ids: The nearest code at each position.
        step: Number of the step.
        decay: Of the running mean, 0 to below 1.
    """
    counts = jnp.zeros_like(use.shares).at[ids.reshape(-1)].add(1.0)
    return CodebookUse(
        shares=decay * use.shares + (1 - decay) * counts / ids.size,
        credit=decay * use.credit,
        last_used=jnp.where(counts > 0, step, use.last_used),
    )


def use_metrics(use: CodebookUse, step: Int[Array, ""], *, decay: float) -> dict[str, Array]:
    """Returns the scalars to report of a codebook.

    Args:
        use: After the step.
        step: Number of the step.
        decay: Of the running mean, which looks back over the last 1 / (1 - decay) steps.

    Returns:
        "usage", the share of codes that were the nearest to something within those steps; and
        "perplexity", how many codes would be in use if all in use were used equally.
    """
    window = round(1 / (1 - decay))
    shares = use.shares / use.shares.sum()
    return {
        "usage": jnp.mean(use.last_used > step - window),
        "perplexity": jnp.exp(-jnp.sum(shares * jnp.log(shares + 1e-10))),
    }


def revive_codes(
    use: CodebookUse,
    codebook: Float[Array, "V C"],
    vectors: Float[Array, "M C"],
    ids: Int[Array, " M"],
    key: Key[Array, ""],
    *,
    below: float,
) -> tuple[CodebookUse, Float[Array, "V C"], Int[Array, ""]]:
    """Replaces codes that fell out of use by encoder outputs that no code is near to.

    An output is drawn with probability proportional to its squared distance to its code, as
    k-means++ draws its centres: drawn evenly, most new codes would be copies of what a batch is
    full of, such as plain background.

    Args:
        use: How often each code was used.
        codebook: The codes.
        vectors: Encoder outputs of the batch.
        ids: The nearest code of each.
        key: Of the draw.
        below: Share of a fair use under which a code is replaced; 0 keeps all.

    Returns:
        The use, the codebook, and how many codes were replaced.
    """
    fair = 1.0 / codebook.shape[0]
    dead = use.shares + use.credit < below * fair
    errors = jnp.sum((vectors - codebook[ids]) ** 2, axis=-1)
    drawn = jax.random.choice(key, ids.size, use.shares.shape, p=errors + 1e-12)
    return (
        use._replace(credit=jnp.where(dead, fair, use.credit)),
        jnp.where(dead[:, None], vectors[drawn], codebook),
        dead.sum(),
    )
