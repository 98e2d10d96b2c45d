"""Infilling: encoding a picture at both resolutions and decoding its unknown tokens, low first.

Source: Muse, sections 2.8 and 3.3.1.
"""

import asyncio
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
from services.pictures.low_resolution import low_resolution_view

MAX_CANVAS_FEATHER_PX = 64  # of a feather on the canvas, whatever the picture's size


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of a canvas at both resolutions.

    Attributes:
        low: Tokens of the low resolution.
        high: Tokens of the high resolution.
        calls: Calls of the tokenizer that encoded them.
    """

    low: TokenGrid
    high: TokenGrid
    calls: tuple[Call, Call]


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Tokens to decode, True where unknown; all other tokens stay.

    Attributes:
        low: Of the low resolution.
        high: Of the high resolution.
    """

    low: Bool[np.ndarray, "g g"]
    high: Bool[np.ndarray, "G G"]


async def encode_canvas(context: RequestContext, canvas: UInt8[np.ndarray, "S S 3"]) -> Tokens:
    """Encodes a canvas and its box-filtered view at the low resolution."""
    low_view = low_resolution_view(canvas, context.resolutions["low_codebook"].side_px)
    (low_tokens, low_call), (high_tokens, high_call) = await asyncio.gather(
        context.encode(low_view, "low_codebook"), context.encode(canvas, "codebook")
    )
    return Tokens(low=low_tokens, high=high_tokens, calls=(low_call, high_call))


async def decode_unknown(
    task: ImageTask, tokens: Tokens, unknown: Unknown, *, seed: int | None = None
) -> UInt8[np.ndarray, "S S 3"]:
    """Decodes the unknown tokens of a canvas; returns the pixels of the whole canvas.

    Both decodes have one seed, by default that of the image.
    """
    task.add_calls(*tokens.calls)
    start = partly_known(tokens.low, unknown.low)
    low = await task.decode(BaseRequest(resume=start), seed=seed)
    start = partly_known(tokens.high, unknown.high)
    high = await task.decode(SuperresRequest(low_tokens=low, resume=start), seed=seed)
    return await task.pixels(high)


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
    low, high = context.resolutions["low_codebook"], context.resolutions["codebook"]
    height, width = old.shape[:2]
    letterbox = letterbox_of(height, width, high.side_px)

    def on_canvas() -> tuple[UInt8[np.ndarray, "S S 3"], Unknown]:
        masked, inside = letterbox.apply_to_mask(mask), letterbox.inside
        unknown = Unknown(
            low=unknown_cells(masked, inside, low.grid),
            high=unknown_cells(masked, inside, high.grid),
        )
        return letterbox.apply(old), unknown

    canvas, unknown = await run_in_thread(on_canvas)
    canvas_feather_px = high.side_px // high.grid // 2
    if feather_px is not None:
        scaled = round(feather_px * high.side_px / max(height, width))
        canvas_feather_px = min(scaled, MAX_CANVAS_FEATHER_PX)
    return MaskedPicture(
        old=old,
        mask=mask,
        letterbox=letterbox,
        tokens=await encode_canvas(context, canvas),
        unknown=unknown,
        feather_px=canvas_feather_px,
    )
