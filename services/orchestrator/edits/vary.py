"""Variations of a picture: a random share of its tokens is decoded anew."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.infill import decode_unknown, encode_canvas
from services.orchestrator.edits.kind import EditKind, Source
from services.orchestrator.edits.letterbox import letterbox_of
from services.orchestrator.edits.limits import check_share
from services.orchestrator.edits.masks import touched_cells
from services.orchestrator.edits.views import decoded_view
from services.orchestrator.image_task import ImageHandler, ImageTask, RequestContext
from services.orchestrator.threads import run_in_thread

STRENGTH = 0.5


def _check(request: GenerateRequest) -> None:
    if request.vary.HasField("strength"):
        check_share("vary.strength", request.vary.strength)


async def _prepare(context: RequestContext, source: Source) -> ImageHandler:
    vary, (height, width) = context.request.vary, source.rgb.shape[:2]
    low = context.resolutions["base"]
    letterbox = letterbox_of(height, width, context.canvas.side_px)
    tokens = await encode_canvas(context, await run_in_thread(letterbox.apply, source.rgb))
    strength = vary.strength if vary.HasField("strength") else STRENGTH
    inside = touched_cells(letterbox.inside, low.grid)

    async def handle(task: ImageTask) -> None:
        chosen = chosen_cells(inside, strength, task.seed)
        unknown = {}
        for stage, each in context.resolutions.items():
            finer = np.arange(each.grid) * low.grid // each.grid
            unknown[stage] = chosen[np.ix_(finer, finer)]
        task = replace(task, show=decoded_view(letterbox))
        canvas = await decode_unknown(task, tokens, unknown)
        await task.deliver(await run_in_thread(letterbox.undo, canvas))

    return handle


def chosen_cells(
    inside: Bool[np.ndarray, "g g"], strength: float, seed: int
) -> Bool[np.ndarray, "g g"]:
    """Returns the tokens to decode anew: a random share of those inside the picture, all outside.

    `strength` is the share, more than 0 to 1; at least one token is chosen.
    """
    of_picture = np.flatnonzero(inside)
    count = max(1, round(strength * len(of_picture)))
    chosen = ~inside.reshape(-1)
    chosen[np.random.default_rng(seed).permutation(of_picture)[:count]] = True
    return chosen.reshape(inside.shape)


VARY = EditKind(name="vary", check=_check, prepare=_prepare, needs_prompt=False)
