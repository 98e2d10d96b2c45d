"""Outpainting: pixels beyond the borders are painted window by window.

Each window is encoded, decoded and composited by itself, so memory grows with the result's pixels
only.

Source: Muse, section 3.3.1.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.infill import decode_unknown, encode_masked
from services.orchestrator.edits.kind import EditKind, Source
from services.orchestrator.edits.limits import MAX_SIDE_PX
from services.orchestrator.edits.views import Overview
from services.orchestrator.edits.windows import Window, windows
from services.orchestrator.image_task import ImageHandler, ImageTask, RequestContext
from services.orchestrator.threads import run_in_thread
from services.pictures.files import ReadPicture, SourcePicture
from services.runtime.wire.errors import invalid_field
from services.sampling import SEEDS

BORDERS = ("left_px", "top_px", "right_px", "bottom_px")
# Each window has a seed of its own; with one seed every window would repeat the same noise.
SEED_STRIDE = 0x9E3779B97F4A7C15  # odd, and far from the seeds of the next images


def _check(request: GenerateRequest) -> None:
    added = {border: getattr(request.outpaint, border) for border in BORDERS}
    for border, pixels in added.items():
        if pixels > MAX_SIDE_PX:
            raise invalid_field(f"outpaint.{border}", expected=f"0 to {MAX_SIDE_PX}", got=pixels)
    if not any(added.values()):
        raise invalid_field("outpaint", expected="pixels to add on a side", got="0 on all four")


def _result_size(request: GenerateRequest, height: int, width: int) -> tuple[int, int]:
    outpaint = request.outpaint
    return (
        outpaint.top_px + height + outpaint.bottom_px,
        outpaint.left_px + width + outpaint.right_px,
    )


def _check_windows(request: GenerateRequest, picture: SourcePicture, read: ReadPicture) -> None:
    """Checks the number of windows; outpainting has no mask."""
    height, width = picture.rgb.shape[:2]
    windows(height, width, request.outpaint)


def _windows(request: GenerateRequest, source: Source) -> int:
    height, width = source.rgb.shape[:2]
    return len(windows(height, width, request.outpaint))


async def _prepare(context: RequestContext, source: Source) -> ImageHandler:
    outpaint, (height, width) = context.request.outpaint, source.rgb.shape[:2]
    plan = windows(height, width, outpaint)
    inner = (
        slice(outpaint.top_px, outpaint.top_px + height),
        slice(outpaint.left_px, outpaint.left_px + width),
    )
    size = _result_size(context.request, height, width)

    async def handle(task: ImageTask) -> None:
        extended, known = np.zeros((*size, 3), np.uint8), np.zeros(size, bool)
        extended[inner], known[inner] = source.rgb, True
        overview: Overview | None = None
        if context.request.preview_every:
            overview = Overview(*size, context.canvas.side_px)
            await run_in_thread(overview.put, source.rgb, inner)
        for number, window in enumerate(plan):
            inside = known[window.slices]
            old = continued(extended[window.slices], inside, window)
            picture = await encode_masked(context, old, ~inside)
            part = replace(task, part=number, parts=len(plan))
            if overview is not None:
                view = await run_in_thread(picture.view)
                part = replace(part, show=overview.window_view(window.slices, view))
            seed = (task.seed + number * SEED_STRIDE) % SEEDS
            canvas = await decode_unknown(part, picture.tokens, picture.unknown, seed=seed)
            extended[window.slices] = await run_in_thread(picture.composite, canvas)
            known[window.slices] = True
            if overview is not None:
                await run_in_thread(overview.put, extended[window.slices], window.slices)
        await task.deliver(extended)

    return handle


def continued(
    pixels: UInt8[np.ndarray, "s s 3"], known: Bool[np.ndarray, "s s"], window: Window
) -> UInt8[np.ndarray, "s s 3"]:
    """Returns a window whose last known line is repeated over its unknown pixels.

    The receptive field of the encoder reaches beyond a token; the repeated line keeps arbitrary
    pixels out of the known tokens.
    """
    if window.axis == 0:
        line = pixels[None, window.border - window.top]
    else:
        line = pixels[:, None, window.border - window.left]
    return np.where(known[..., None], pixels, line)


OUTPAINT = EditKind(
    name="outpaint",
    check=_check,
    prepare=_prepare,
    windows=_windows,
    result_size=_result_size,
    read_mask=_check_windows,
)
