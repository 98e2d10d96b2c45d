"""Inpainting: what a mask covers is painted anew, and every other pixel stays as it was.

Source: Muse, section 3.3.1; DESIGN 4.11.
"""

import asyncio
from dataclasses import replace

from services.orchestrator.edits.masks import seamless, unknown_cells
from services.orchestrator.edits.placing import place_of
from services.orchestrator.edits.repainting import Unknown, repainted, tokens_of
from services.orchestrator.edits.sources import Source
from services.orchestrator.edits.views import DecodedView, repainted_view
from services.orchestrator.painting import Painter, Painting, Work
from services.orchestrator.previews import Show

WIDEST_ON_CANVAS_PX = 64  # of a feather, whatever the picture's size


async def inpainter(work: Work, source: Source) -> Painter:
    """Encodes the picture once for all, and returns what paints each."""
    inpaint, old, mask = work.request.inpaint, source.rgb, source.mask
    assert mask is not None
    low, high = work.resolutions["low_codebook"], work.resolutions["codebook"]
    height, width = old.shape[:2]
    place = place_of(height, width, high.side_px)
    canvas, masked = await asyncio.to_thread(lambda: (place.onto(old), place.mask_onto(mask)))
    tokens = await tokens_of(work, canvas)
    unknown = Unknown(
        low=unknown_cells(masked, place.inside, low.grid),
        high=unknown_cells(masked, place.inside, high.grid),
    )
    feather_px = high.side_px // high.grid // 2
    if inpaint.HasField("feather_px"):
        on_canvas = round(inpaint.feather_px * high.side_px / max(height, width))
        feather_px = min(on_canvas, WIDEST_ON_CANVAS_PX)
    composite = inpaint.composite or not inpaint.HasField("composite")
    show: Show | None = None
    if work.request.preview_every and not composite:
        show = DecodedView(place=place)
    elif work.request.preview_every:
        show = await asyncio.to_thread(repainted_view, old, mask, place, feather_px)

    async def paint(painting: Painting) -> None:
        painting = replace(painting, show=show)
        painted = await repainted(painting, tokens, unknown)
        if composite:
            whole = await asyncio.to_thread(seamless, old, painted, mask, place, feather_px)
            await painting.deliver(whole)
        else:
            await painting.deliver(await asyncio.to_thread(place.off, painted))

    return paint
