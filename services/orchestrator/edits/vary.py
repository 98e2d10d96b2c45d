"""Variations, and pictures after a picture: a random share of its tokens is painted anew."""

import asyncio
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from services.orchestrator.edits.infill import Unknown, repainted, tokens_of
from services.orchestrator.edits.letterbox import place_of
from services.orchestrator.edits.masks import touched_cells
from services.orchestrator.edits.sources import Source
from services.orchestrator.edits.views import DecodedView
from services.orchestrator.image_task import Painter, Painting, Work

STRENGTH = 0.5


async def varier(work: Work, source: Source) -> Painter:
    """Encodes the picture once for all, and returns what paints each variation."""
    vary, (height, width) = work.request.vary, source.rgb.shape[:2]
    low, high = work.resolutions["low_codebook"], work.resolutions["codebook"]
    place = place_of(height, width, high.side_px)
    tokens = await tokens_of(work, await asyncio.to_thread(place.onto, source.rgb))
    strength = vary.strength if vary.HasField("strength") else STRENGTH
    inside = touched_cells(place.inside, low.grid)

    async def paint(painting: Painting) -> None:
        chosen = chosen_cells(inside, strength, painting.seed)
        finer = np.arange(high.grid) * low.grid // high.grid
        unknown = Unknown(low=chosen, high=chosen[np.ix_(finer, finer)])
        painting = replace(painting, show=DecodedView(place=place))
        painted = await repainted(painting, tokens, unknown)
        await painting.deliver(await asyncio.to_thread(place.off, painted))

    return paint


def chosen_cells(
    inside: Bool[np.ndarray, "g g"], strength: float, seed: int
) -> Bool[np.ndarray, "g g"]:
    """Returns which tokens are painted anew: a share of those inside the picture, all outside.

    Args:
        inside: Tokens of which any pixel is the picture's.
        strength: The share, more than 0 to 1; at least one token.
        seed: Of the choice.
    """
    of_picture = np.flatnonzero(inside)
    count = max(1, round(strength * len(of_picture)))
    chosen = ~inside.reshape(-1)
    chosen[np.random.default_rng(seed).permutation(of_picture)[:count]] = True
    return chosen.reshape(inside.shape)
