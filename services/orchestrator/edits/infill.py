"""Infilling: encoding a picture for every decoding stage and decoding its unknown tokens in order.

Source: Muse, sections 2.8 and 3.3.1.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.decoding_pb2 import DecodeState
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest

from services.orchestrator.edits.letterbox import BILINEAR, Letterbox, letterbox_of, resized
from services.orchestrator.edits.masks import seamless, unknown_cells
from services.orchestrator.image_task import ImageTask, RequestContext
from services.orchestrator.previews import Show
from services.orchestrator.threads import run_in_thread
from services.orchestrator.timeline import Call
from services.stages import StageName

MAX_CANVAS_FEATHER_PX = 64  # of a feather on the canvas, whatever the picture's size


Unknown = Mapping[StageName, Bool[np.ndarray, "g g"]]
"""Tokens to decode, by stage: True where unknown; all other tokens stay."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of a canvas.

    Attributes:
        grids: Those of each stage that decodes, by name.
        calls: Calls of the tokenizer that encoded them.
    """

    grids: Mapping[StageName, TokenGrid]
    calls: Sequence[Call]


async def encode_canvas(context: RequestContext, canvas: UInt8[np.ndarray, "S S 3"]) -> Tokens:
    """Encodes a canvas to the tokens of every stage that decodes."""
    stages = context.stages.decoding
    encoded = await asyncio.gather(*(context.encode(canvas, stage) for stage in stages))
    grids = {stage: grid for stage, (grid, _) in zip(stages, encoded, strict=True)}
    return Tokens(grids=grids, calls=[call for _, call in encoded])


async def decode_unknown(
    task: ImageTask, tokens: Tokens, unknown: Unknown, *, seed: int | None = None
) -> UInt8[np.ndarray, "S S 3"]:
    """Decodes the unknown tokens of a canvas; returns the pixels of the whole canvas.

    All decodes have one seed, by default that of the image.
    """
    task.add_calls(*tokens.calls)
    starts = {stage: partly_known(grid, unknown[stage]) for stage, grid in tokens.grids.items()}
    grid = await task.decode(BaseRequest(resume=starts["base"]), seed=seed)
    if task.context.has_superres:
        request = SuperresRequest(low_tokens=grid, resume=starts["superres"])
        grid = await task.decode(request, seed=seed)
    return await task.pixels(grid)


def partly_known(tokens: TokenGrid, unknown: Bool[np.ndarray, "g g"]) -> DecodeState:
    """Returns the start of a decode in which some tokens are known."""
    return DecodeState(tokens=tokens, known=(~unknown).astype(np.uint8).tobytes())


@dataclass(frozen=True, kw_only=True)
class MaskedPicture:
    """A picture with a mask, encoded, as inpainting and each window of outpainting need it.

    Attributes:
        old: Pixels of the picture.
        mask: True at pixels to repaint.
        letterbox: Position of the picture on the canvas.
        tokens: Tokens of the canvas.
        unknown: Tokens to decode.
        feather_px: Canvas pixels, inside the mask, over which new pixels fade in.
    """

    old: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    letterbox: Letterbox
    tokens: Tokens
    unknown: Unknown
    feather_px: int

    def view(self) -> Show:
        """Returns a view that shows the picture with the decoded pixels blended into its mask."""
        old, mask, letterbox = self.old, self.mask, self.letterbox
        shrunk = letterbox.shrunk
        if shrunk is not letterbox:
            old = letterbox.cut(letterbox.apply(old))
            mask = letterbox.cut(letterbox.apply_to_mask(mask))
        size, feather_px = (shrunk.side, shrunk.side), self.feather_px
        return lambda square: seamless(
            old, resized(square, size, BILINEAR), mask, shrunk, feather_px
        )

    def composite(self, canvas: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture with a decoded canvas where the mask is True."""
        return seamless(self.old, canvas, self.mask, self.letterbox, self.feather_px)


async def encode_masked(
    context: RequestContext,
    old: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    *,
    feather_px: int | None = None,
) -> MaskedPicture:
    """Encodes a picture and finds the tokens that its mask leaves unknown.

    New pixels fade in over `feather_px` pixels of the picture, by default over half a token.
    """
    side, (height, width) = context.canvas.side_px, old.shape[:2]
    letterbox = letterbox_of(height, width, side)

    def on_canvas() -> tuple[UInt8[np.ndarray, "S S 3"], Unknown]:
        masked, inside = letterbox.apply_to_mask(mask), letterbox.inside
        unknown = {
            stage: unknown_cells(masked, inside, each.grid)
            for stage, each in context.resolutions.items()
        }
        return letterbox.apply(old), unknown

    canvas, unknown = await run_in_thread(on_canvas)
    canvas_feather_px = side // context.canvas.grid // 2
    if feather_px is not None:
        scaled = round(feather_px * side / max(height, width))
        canvas_feather_px = min(scaled, MAX_CANVAS_FEATHER_PX)
    return MaskedPicture(
        old=old,
        mask=mask,
        letterbox=letterbox,
        tokens=await encode_canvas(context, canvas),
        unknown=unknown,
        feather_px=canvas_feather_px,
    )
