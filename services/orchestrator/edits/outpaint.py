"""Outpainting: what lies beyond the borders is painted window by window.

Each window is tokenised, painted and put back by itself, so besides the result's pixels nothing
grows with its size.

Source: Muse, section 3.3.1; DESIGN 4.11.
"""

import asyncio
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8

from services.orchestrator.edits.masks import seamless, unknown_cells
from services.orchestrator.edits.placing import Place, place_of
from services.orchestrator.edits.repainting import Unknown, repainted, tokens_of
from services.orchestrator.edits.sources import Source
from services.orchestrator.edits.views import Overview, WindowView, repainted_view
from services.orchestrator.edits.windows import Window, windows
from services.orchestrator.painting import Painter, Painting, Work
from services.sampling import SEEDS

# Windows of one picture draw from seeds of their own, or each would repeat the last one's noise.
SEED_STRIDE = 0x9E3779B97F4A7C15  # odd, and far from the seeds of the next pictures


async def outpainter(work: Work, source: Source) -> Painter:
    """Plans the windows, and returns what paints each picture."""
    outpaint, (height, width) = work.request.outpaint, source.rgb.shape[:2]
    plan = windows(height, width, outpaint)
    inner = (
        slice(outpaint.top_px, outpaint.top_px + height),
        slice(outpaint.left_px, outpaint.left_px + width),
    )
    size = (
        outpaint.top_px + height + outpaint.bottom_px,
        outpaint.left_px + width + outpaint.right_px,
    )

    async def paint(painting: Painting) -> None:
        extended, there = np.zeros((*size, 3), np.uint8), np.zeros(size, bool)
        extended[inner], there[inner] = source.rgb, True
        overview: Overview | None = None
        if work.request.preview_every:
            overview = Overview(*size, work.resolutions["codebook"].side_px)
            await asyncio.to_thread(overview.put, source.rgb, inner)
        for number, window in enumerate(plan):
            part = replace(painting, part=number, parts=len(plan))
            seed = (painting.seed + number * SEED_STRIDE) % SEEDS
            known = there[window.slices]
            old = continued(extended[window.slices], known, window)
            painted = await _painted(part, old, known, seed, window, overview)
            extended[window.slices] = painted
            if overview is not None:
                await asyncio.to_thread(overview.put, painted, window.slices)
            there[window.slices] = True
        await painting.deliver(extended)

    return paint


async def _painted(
    painting: Painting,
    old: UInt8[np.ndarray, "s s 3"],
    known: Bool[np.ndarray, "s s"],
    seed: int,
    window: Window,
    overview: Overview | None,
) -> UInt8[np.ndarray, "s s 3"]:
    """Returns a window with what is not known painted; shown in the overview, if there is one."""
    resolutions, side = painting.work.resolutions, len(old)
    low, high = resolutions["low_codebook"], resolutions["codebook"]
    place = place_of(side, side, high.side_px)
    canvas, unknown = await asyncio.to_thread(_on_canvas, place, old, ~known, low.grid, high.grid)
    tokens = await tokens_of(painting.work, canvas)
    feather_px = high.side_px // high.grid // 2
    if overview is not None:
        view = await asyncio.to_thread(repainted_view, old, ~known, place, feather_px)
        show = WindowView(overview=overview, at=window.slices, window=view)
        painting = replace(painting, show=show)
    painted = await repainted(painting, tokens, unknown, seed=seed)
    return await asyncio.to_thread(seamless, old, painted, ~known, place, feather_px)


def _on_canvas(
    place: Place,
    old: UInt8[np.ndarray, "s s 3"],
    mask: Bool[np.ndarray, "s s"],
    low_grid: int,
    high_grid: int,
) -> tuple[UInt8[np.ndarray, "S S 3"], Unknown]:
    masked, inside = place.mask_onto(mask), place.inside
    unknown = Unknown(
        low=unknown_cells(masked, inside, low_grid), high=unknown_cells(masked, inside, high_grid)
    )
    return place.onto(old), unknown


def continued(
    pixels: UInt8[np.ndarray, "s s 3"], known: Bool[np.ndarray, "s s"], window: Window
) -> UInt8[np.ndarray, "s s 3"]:
    """Returns a window with its last known line repeated over the pixels that are not known.

    The encoder looks a little beyond each token; so it sees nothing that is not there.

    Args:
        pixels: The window; what stands where nothing is known does not matter.
        known: Its pixels that are there.
        window: Where it lies.
    """
    if window.axis == 0:
        line = pixels[None, window.border - window.top]
    else:
        line = pixels[:, None, window.border - window.left]
    return np.where(known[..., None], pixels, line)
