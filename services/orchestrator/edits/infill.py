"""A picture's tokens at both resolutions, and painting the unknown ones: low first, then high.

Source: Muse, sections 2.8 and 3.3.1; DESIGN 4.11.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.decoding_pb2 import DecodeState
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest

from services.orchestrator.image_task import Painting, Work
from services.orchestrator.timeline import Call
from services.pictures.low_resolution import low_resolution_view


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A picture as tokens.

    Attributes:
        low: Of the low resolution.
        high: Of the high resolution.
        calls: What made them.
    """

    low: TokenGrid
    high: TokenGrid
    calls: tuple[Call, Call]


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Which tokens to paint, True where; all others stay.

    Attributes:
        low: Of the low resolution.
        high: Of the high resolution.
    """

    low: Bool[np.ndarray, "g g"]
    high: Bool[np.ndarray, "G G"]


async def tokens_of(work: Work, canvas: UInt8[np.ndarray, "S S 3"]) -> Tokens:
    """Has the tokenizer encode a canvas at both resolutions.

    Args:
        work: The request.
        canvas: A picture of the high resolution's side; the low one is made by taking means.
    """
    low, high = work.resolutions["low_codebook"], work.resolutions["codebook"]
    (low_tokens, low_call), (high_tokens, high_call) = await asyncio.gather(
        work.encode(low_resolution_view(canvas, low.side_px), low.codebook),
        work.encode(canvas, high.codebook),
    )
    return Tokens(low=low_tokens, high=high_tokens, calls=(low_call, high_call))


async def repainted(
    painting: Painting, tokens: Tokens, unknown: Unknown, *, seed: int | None = None
) -> UInt8[np.ndarray, "S S 3"]:
    """Returns the canvas with its unknown tokens painted.

    Args:
        painting: The picture it is for.
        tokens: Of the canvas.
        unknown: Which of them to paint.
        seed: Of the decodes; the picture's by default.
    """
    painting.spent(*tokens.calls)
    start = partly_known(tokens.low, unknown.low)
    low = await painting.decode(BaseRequest(resume=start), seed=seed)
    start = partly_known(tokens.high, unknown.high)
    high = await painting.decode(SuperresRequest(low_tokens=low, resume=start), seed=seed)
    return await painting.pixels(high)


def partly_known(tokens: TokenGrid, unknown: Bool[np.ndarray, "g g"]) -> DecodeState:
    """Returns the start of a decode in which some tokens are known."""
    return DecodeState(tokens=tokens, known=(~unknown).astype(np.uint8).tobytes())
