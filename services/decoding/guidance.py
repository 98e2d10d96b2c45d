"""Classifier-free guidance, whose scale grows as a decode goes on.

Source: Muse, section 2.7 and equation 1; DESIGN 4.3.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def guidance_at(
    step: Int[Array, " S"],
    total: Int[Array, " S"],
    first: Float[Array, " S"],
    last: Float[Array, " S"],
) -> Float[Array, " S"]:
    """Returns each row's guidance scale: linear from the first step to the last.

    Args:
        step: The step being taken, from 0.
        total: Steps of the whole decode; with a single one, that step is the last.
        first: Scale of the first step (the paper: 0). Equal to `last`, it is constant.
        last: Scale of the last step.
    """
    share = jnp.where(total > 1, step / jnp.maximum(total - 1, 1), 1.0)
    return first + (last - first) * share.astype(jnp.float32)


def guided(
    conditional: Float[Array, "S N D"],
    unconditional: Float[Array, "S N D"],
    scale: Float[Array, " S"],
) -> Float[Array, "S N D"]:
    """Moves logits away from the unconditional (or negative) ones: (1+t) l_cond - t l_uncond.

    The two factors add up to 1. So a last layer W x + b makes of guided features what guidance
    makes of its logits, bias included, and is computed once, not for each branch.

    Args:
        conditional: Logits, or what the last layer takes, of the branch that hears the prompt; a
            scale of 0 returns exactly these.
        unconditional: The same without text, or of the negative prompt.
        scale: Each row's t.
    """
    t = scale.astype(jnp.float32)[:, None, None]
    return (1.0 + t) * conditional.astype(jnp.float32) - t * unconditional.astype(jnp.float32)
