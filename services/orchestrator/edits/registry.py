"""EDITS: every edit kind by name. Request checks, sources and the pipeline read this one list."""

from collections.abc import Mapping

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest

from services.orchestrator.edits.inpaint import INPAINT
from services.orchestrator.edits.kind import EditKind
from services.orchestrator.edits.mask_free import MASK_FREE_EDIT
from services.orchestrator.edits.outpaint import OUTPAINT
from services.orchestrator.edits.vary import VARY

EDITS: Mapping[str, EditKind] = {
    kind.name: kind for kind in (INPAINT, OUTPAINT, MASK_FREE_EDIT, VARY)
}


def edit_kind(request: GenerateRequest) -> EditKind | None:
    """Returns the edit kind of a request; None for a request that generates."""
    name = request.WhichOneof("edit")
    return None if name is None else EDITS[name]
