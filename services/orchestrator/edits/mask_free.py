"""Mask-free editing: each iteration resamples a few low-resolution tokens towards the prompt.

Source: Muse, section 3.3.2.
"""

from dataclasses import replace

import numpy as np
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.base.v1.base_pb2 import MaskFreeEdit as BaseMaskFreeEdit
from muse.common.v1.decoding_pb2 import DecodeProgress, Sampling
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, MaskFreeEdit
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest

from services.orchestrator.calls import task_group
from services.orchestrator.edits.infill import partly_known
from services.orchestrator.edits.kind import EditKind, Source
from services.orchestrator.edits.letterbox import letterbox_of
from services.orchestrator.edits.limits import check_share
from services.orchestrator.edits.views import decoded_view
from services.orchestrator.image_task import ImageHandler, ImageTask, RequestContext
from services.orchestrator.threads import run_in_thread
from services.runtime.wire.errors import invalid_field
from services.sampling import MAX_STEPS

MAX_KEPT = 16
GUIDANCE, TOP_K, ITERATIONS = 4.0, 3, 100  # Muse, section 3.3.2


def _check(request: GenerateRequest) -> None:
    edit, field = request.mask_free_edit, "mask_free_edit"
    if edit.HasField("iterations") and not 1 <= edit.iterations <= MAX_STEPS:
        raise invalid_field(
            f"{field}.iterations", expected=f"1 to {MAX_STEPS}", got=edit.iterations
        )
    if edit.HasField("strength"):
        if edit.HasField("iterations"):
            raise invalid_field(
                f"{field}.strength", expected="not set beside iterations", got=edit.strength
            )
        check_share(f"{field}.strength", edit.strength)
    if edit.HasField("fraction"):
        check_share(f"{field}.fraction", edit.fraction)
    if len(edit.return_iterations) > MAX_KEPT:
        raise invalid_field(
            f"{field}.return_iterations",
            expected=f"at most {MAX_KEPT}",
            got=len(edit.return_iterations),
        )
    last = iterations_of(edit)
    for kept in edit.return_iterations:
        if kept > last:
            raise invalid_field(f"{field}.return_iterations", expected=f"0 to {last}", got=kept)
    for parameter in ("steps", "min_steps"):
        if request.base.HasField(parameter):
            raise invalid_field(
                f"base.{parameter}",
                expected="not set in a mask-free edit",
                got=getattr(request.base, parameter),
                advice="set mask_free_edit.iterations",
            )


def iterations_of(edit: MaskFreeEdit) -> int:
    """Returns the number of iterations of a mask-free edit."""
    if edit.HasField("strength"):
        return max(1, round(2 * ITERATIONS * edit.strength))
    return edit.iterations if edit.HasField("iterations") else ITERATIONS


def kept_of(edit: MaskFreeEdit) -> list[int]:
    """Returns the iterations after which the picture is returned, in order, the last included."""
    return sorted({*edit.return_iterations, iterations_of(edit)})


def _base_sampling(request: GenerateRequest, own: Sampling) -> Sampling:
    parameters = Sampling(guidance_scale=GUIDANCE, top_k=TOP_K)
    parameters.MergeFrom(own)
    if request.base.HasField("guidance_scale"):
        parameters.guidance_scale = request.base.guidance_scale
    parameters.guidance_scale_start = parameters.guidance_scale  # the same in every iteration
    parameters.steps = iterations_of(request.mask_free_edit)
    return parameters


async def _prepare(context: RequestContext, source: Source) -> ImageHandler:
    edit, (height, width) = context.request.mask_free_edit, source.rgb.shape[:2]
    letterbox = letterbox_of(height, width, context.canvas.side_px)
    canvas = await run_in_thread(letterbox.apply, source.rgb)
    tokens, call = await context.encode(canvas, "base")

    async def finish(task: ImageTask, iteration: int, tokens: TokenGrid) -> None:
        if context.has_superres:
            tokens = await task.decode(SuperresRequest(low_tokens=tokens))
        decoded = await task.pixels(tokens)
        await task.deliver(await run_in_thread(letterbox.undo, decoded), iteration=iteration)

    async def handle(task: ImageTask) -> None:
        task = replace(task, show=decoded_view(letterbox))
        task.add_calls(call)
        returned = await _iterate(task, edit, tokens)
        async with task_group() as group:
            for part, iteration in enumerate(sorted(returned)):
                fork = task.fork(part, len(returned))
                group.create_task(finish(fork, iteration, returned[iteration]))

    return handle


async def _iterate(task: ImageTask, edit: MaskFreeEdit, tokens: TokenGrid) -> dict[int, TokenGrid]:
    """Returns the low-resolution tokens after each iteration that the caller asked for."""
    iterations, last = kept_of(edit), iterations_of(edit)
    returned = {0: tokens} if 0 in iterations else {}

    async def collect(progress: DecodeProgress) -> None:
        if progress.step in iterations:
            returned[progress.step] = progress.state.tokens

    every_token = np.ones(tokens.height * tokens.width, bool)
    base_edit = BaseMaskFreeEdit(fraction=edit.fraction if edit.HasField("fraction") else None)
    request = BaseRequest(resume=partly_known(tokens, every_token), mask_free_edit=base_edit)
    between = any(0 < each < last for each in iterations)
    returned[last] = await task.decode(request, on_step=collect if between else None)
    return returned


MASK_FREE_EDIT = EditKind(
    name="mask_free_edit",
    check=_check,
    prepare=_prepare,
    base_sampling=_base_sampling,
    results=lambda request: len(kept_of(request.mask_free_edit)),
)
