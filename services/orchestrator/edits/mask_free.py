"""Mask-free editing: low-resolution tokens drawn anew, a few at a time, towards the prompt.

Source: Muse, section 3.3.2; DESIGN 4.12.
"""

import asyncio
from dataclasses import replace

import numpy as np
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.base.v1.base_pb2 import MaskFreeEdit as BaseMaskFreeEdit
from muse.common.v1.decoding_pb2 import DecodeProgress
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.orchestrator.v1.orchestrator_pb2 import MaskFreeEdit
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest

from services.orchestrator.calls import task_group
from services.orchestrator.edits.limits import iterations_of, kept_of
from services.orchestrator.edits.placing import place_of
from services.orchestrator.edits.repainting import partly_known
from services.orchestrator.edits.sources import Source
from services.orchestrator.edits.views import DecodedView
from services.orchestrator.painting import Painter, Painting, Work
from services.pictures.low_resolution import low_resolution_view


async def mask_free_editor(work: Work, source: Source) -> Painter:
    """Encodes the picture once for all, and returns what edits each."""
    edit, (height, width) = work.request.mask_free_edit, source.rgb.shape[:2]
    low = work.resolutions["low_codebook"]
    place = place_of(height, width, work.resolutions["codebook"].side_px)
    canvas = await asyncio.to_thread(place.onto, source.rgb)
    tokens, call = await work.encode(low_resolution_view(canvas, low.side_px), low.codebook)

    async def finish(painting: Painting, iteration: int, low_tokens: TokenGrid) -> None:
        high = await painting.decode(SuperresRequest(low_tokens=low_tokens))
        painted = await painting.pixels(high)
        await painting.deliver(await asyncio.to_thread(place.off, painted), iteration=iteration)

    async def paint(painting: Painting) -> None:
        painting = replace(painting, show=DecodedView(place=place))
        painting.spent(call)
        taken = await _iterations(painting, edit, tokens)
        async with task_group() as group:
            for part, iteration in enumerate(sorted(taken)):
                fork = painting.fork(part, len(taken))
                group.create_task(finish(fork, iteration, taken[iteration]))

    return paint


async def _iterations(
    painting: Painting, edit: MaskFreeEdit, tokens: TokenGrid
) -> dict[int, TokenGrid]:
    """Returns the tokens after each of the iterations that are wanted."""
    wanted, last = kept_of(edit), iterations_of(edit)
    taken = {0: tokens} if 0 in wanted else {}

    async def watch(progress: DecodeProgress) -> None:
        if progress.step in wanted:
            taken[progress.step] = progress.state.tokens

    all_open = np.ones(tokens.height * tokens.width, bool)
    base_edit = BaseMaskFreeEdit(fraction=edit.fraction if edit.HasField("fraction") else None)
    request = BaseRequest(resume=partly_known(tokens, all_open), mask_free_edit=base_edit)
    between = any(0 < each < last for each in wanted)
    taken[last] = await painting.decode(request, watch=watch if between else None)
    return taken
