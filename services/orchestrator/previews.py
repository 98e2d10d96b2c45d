"""What tokens look like: those of a finished decode, and those of one between two steps."""

import asyncio
import io
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8
from muse.common.v1.decoding_pb2 import DecodeState
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.orchestrator.v1.orchestrator_pb2 import Preview
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest
from PIL import Image

from services.orchestrator.calls import Deadline, call_stage
from services.orchestrator.stages import Stages
from services.orchestrator.timeline import Call, timed
from services.runtime.wire.tensors import UINT8, unpack_tensor

GREY = 128  # of what is not known yet

# Makes of a decoded square, of either resolution, what the caller sees of it.
Show = Callable[[UInt8[np.ndarray, "s s 3"]], UInt8[np.ndarray, "h w 3"]]


async def pixels_of(
    stages: Stages, tokens: TokenGrid, deadline: Deadline
) -> tuple[UInt8[np.ndarray, "s s 3"], Call]:
    """Has the tokenizer turn tokens into a picture; also returns the call.

    Raises:
        RequestError: the tokenizer refused, or stayed unavailable.
    """
    begun = time.monotonic()
    decoded = await call_stage(
        "tokenizer",
        lambda left_s: stages.tokenizer.Decode(DecodeRequest(tokens=tokens), timeout=left_s),
        deadline,
    )
    pixels = unpack_tensor(
        decoded.pixels, field="pixels", data_types=(UINT8,), shape=(None, None, 3)
    )
    return pixels, timed(decoded.timing, begun)


async def preview_of(
    stages: Stages,
    state: DecodeState,
    deadline: Deadline,
    *,
    all_known: bool,
    show: Show | None = None,
) -> tuple[Preview, Call]:
    """Has the tokenizer make a picture of a decode under way, grey where nothing is known yet.

    Args:
        stages: Whom to call.
        state: The decode.
        deadline: Of the request.
        all_known: Whether all of its tokens count, as in a mask-free edit, whatever is settled.
        show: What to make of the picture; it is sent as it is by default.

    Raises:
        RequestError: the tokenizer refused, or stayed unavailable.
    """
    tokens = state.tokens
    pixels, call = await pixels_of(stages, tokens, deadline)
    known = np.ones((tokens.height, tokens.width), bool)
    if not all_known:
        known = np.frombuffer(state.known, np.uint8).reshape(known.shape) != 0

    def png() -> bytes:  # off the event loop, as whatever shows it takes its time
        square = greyed(pixels, known)
        return _png(square if show is None else show(square))

    return Preview(
        tokens=tokens, known=known.astype(np.uint8).tobytes(), png=await asyncio.to_thread(png)
    ), call


def greyed(
    pixels: UInt8[np.ndarray, "h w 3"], known: Bool[np.ndarray, "g g"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture that is grey where its token is not known.

    Args:
        pixels: Of a side that is a multiple of the grid's.
        known: Which of its tokens are.
    """
    cell = len(pixels) // len(known)
    shown = np.kron(known, np.ones((cell, cell), bool))
    return np.where(shown[..., None], pixels, np.uint8(GREY))


def _png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
