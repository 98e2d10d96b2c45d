"""Classifier-free guidance, with a scale that grows over the steps of a decode.

Source: Muse, section 2.7 and equation 1; docs/method.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def guidance_at(
    step: Int[Array, " S"],
    total: Int[Array, " S"],
    first: Float[Array, " S"],
    last: Float[Array, " S"],
) -> Float[Array, " S"]:
    """Returns each row's guidance scale, which grows linearly from the first step to the last.

    Args:
        step: Index of the current step, from 0.
        total: Steps of the whole decode; a single step has the scale `last`.
        first: Scale of the first step (0 in the paper).
        last: Scale of the last step.
    """
    share = jnp.where(total > 1, step / jnp.maximum(total - 1, 1), 1.0)
    return first + (last - first) * share.astype(jnp.float32)


def guided(
    conditional: Float[Array, "S N D"],
    unconditional: Float[Array, "S N D"],
    scale: Float[Array, " S"],
) -> Float[Array, "S N D"]:
    """Returns (1+t) cond - t uncond: logits moved away from the unconditional or negative ones.

    The two factors sum to 1, so guidance commutes with a last layer W x + b, bias included.
    Features can be guided before the last layer, which is then computed once for both branches.

    Args:
        conditional: Logits of the prompt, or the features before the last layer; a scale of 0
            returns exactly these.
        unconditional: Logits or features without text, or of the negative prompt.
        scale: Guidance scale t of each row.

    Returns:
        Guided logits or features, in float32.
    """
    t = scale.astype(jnp.float32)[:, None, None]
    return (1.0 + t) * conditional.astype(jnp.float32) - t * unconditional.astype(jnp.float32)
