"""Which code paints which edit."""

from collections.abc import Awaitable, Callable

from services.orchestrator.edits.inpaint import inpainter
from services.orchestrator.edits.mask_free import mask_free_editor
from services.orchestrator.edits.outpaint import outpainter
from services.orchestrator.edits.sources import Source
from services.orchestrator.edits.vary import varier
from services.orchestrator.image_task import Painter, Work
from services.runtime.wire.errors import failed_precondition

_MAKERS: dict[str, Callable[[Work, Source], Awaitable[Painter]]] = {
    "inpaint": inpainter,
    "outpaint": outpainter,
    "mask_free_edit": mask_free_editor,
    "vary": varier,
}


async def painter_of(work: Work, source: Source) -> Painter:
    """Does what all pictures of an edit have in common, and returns what paints each.

    Args:
        work: The request, which is an edit.
        source: What it edits.

    Raises:
        RequestError: FAILED_PRECONDITION: the tokenizer does not say the size of its pictures. Or
            a stage refused, or stayed unavailable.
    """
    if missing := {"low_codebook", "codebook"} - set(work.resolutions):
        raise failed_precondition(
            f"the tokenizer does not say the size of its pictures for {sorted(missing)}: "
            "serve a tokenizer of this version"
        )
    return await _MAKERS[source.edit](work, source)
