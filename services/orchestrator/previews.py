"""Previews: pictures of a decode between two steps."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8
from muse.common.v1.decoding_pb2 import DecodeState
from muse.orchestrator.v1.orchestrator_pb2 import Preview
from PIL.PngImagePlugin import PngInfo

from services.orchestrator.picture_files import png_file

GREY = 128  # of unknown tokens

Show = Callable[[UInt8[np.ndarray, "s s 3"]], UInt8[np.ndarray, "h w 3"]]
"""Turns a decoded square of either resolution into the picture of a preview."""


def preview_of(
    state: DecodeState,
    pixels: UInt8[np.ndarray, "s s 3"],
    *,
    all_known: bool,
    metadata: PngInfo,
    show: Show | None = None,
) -> Preview:
    """Returns the preview of a decode in progress, grey at unknown tokens.

    Args:
        state: State of the decode.
        pixels: The decoded square.
        all_known: Whether every token is shown, as in a mask-free edit.
        metadata: Text chunks of the PNG.
        show: Turns the square into the picture to send; the square itself by default.
    """
    tokens = state.tokens
    known = np.ones((tokens.height, tokens.width), bool)
    if not all_known:
        known = np.frombuffer(state.known, np.uint8).reshape(known.shape) != 0
    square = greyed(pixels, known)
    png = png_file(square if show is None else show(square), pnginfo=metadata)
    return Preview(tokens=tokens, known=known.astype(np.uint8).tobytes(), png=png)


def greyed(
    pixels: UInt8[np.ndarray, "h w 3"], known: Bool[np.ndarray, "g g"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture with the cells of unknown tokens greyed."""
    cell = len(pixels) // len(known)
    shown = np.kron(known, np.ones((cell, cell), bool))
    return np.where(shown[..., None], pixels, np.uint8(GREY))
