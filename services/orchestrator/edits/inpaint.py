"""Inpainting: pixels under a mask are painted anew, and every other pixel stays as it was.

Source: Muse, section 3.3.1.
"""

from dataclasses import replace

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.infill import decode_unknown, encode_masked
from services.orchestrator.edits.kind import EditKind, Mask, Source
from services.orchestrator.edits.pictures import HALF, read_mask
from services.orchestrator.edits.views import decoded_view
from services.orchestrator.image_task import ImageHandler, ImageTask, RequestContext
from services.orchestrator.previews import Show
from services.orchestrator.threads import run_in_thread
from services.pictures.files import ReadPicture, SourcePicture
from services.runtime.wire.errors import invalid_field

MAX_FEATHER_PX = 1024


def _check(request: GenerateRequest) -> None:
    feather_px = request.inpaint.feather_px
    if feather_px > MAX_FEATHER_PX:
        raise invalid_field("inpaint.feather_px", expected=f"0 to {MAX_FEATHER_PX}", got=feather_px)


def _read_mask(request: GenerateRequest, picture: SourcePicture, read: ReadPicture) -> Mask:
    field = "inpaint.mask"
    if request.inpaint.mask:
        by_alpha = request.inpaint.mask_is_alpha
        size = picture.rgb.shape[:2]
        mask = read_mask(request.inpaint.mask, field, size, read, is_alpha=by_alpha)
        got = f"one without a {'transparent' if by_alpha else 'white'} pixel"
    elif picture.alpha is not None:
        mask = picture.alpha < HALF
        got = "none, and a picture without a transparent pixel"
    else:
        raise invalid_field(field, expected="a mask, or a picture with alpha", got="neither")
    if not mask.any():
        raise invalid_field(
            field,
            expected="a mask that marks a pixel to repaint",
            got=got,
            advice="white is repainted, black kept; with mask_is_alpha, what is transparent",
        )
    return mask


async def _prepare(context: RequestContext, source: Source) -> ImageHandler:
    inpaint = context.request.inpaint
    assert source.mask is not None
    feather_px = inpaint.feather_px if inpaint.HasField("feather_px") else None
    picture = await encode_masked(context, source.rgb, source.mask, feather_px=feather_px)
    composite = inpaint.composite or not inpaint.HasField("composite")
    show: Show | None = None
    if context.request.preview_every and not composite:
        show = decoded_view(picture.letterbox)
    elif context.request.preview_every:
        show = await run_in_thread(picture.view)
    finish = picture.composite if composite else picture.letterbox.undo

    async def handle(task: ImageTask) -> None:
        task = replace(task, show=show)
        canvas = await decode_unknown(task, picture.tokens, picture.unknown)
        await task.deliver(await run_in_thread(finish, canvas))

    return handle


INPAINT = EditKind(name="inpaint", check=_check, prepare=_prepare, read_mask=_read_mask)
