"""Whether the numbers of an edit are in their ranges, before its picture is looked at."""

from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Inpaint

from services.runtime.errors import invalid_field

WIDEST_FEATHER_PX = 1024
MOST_EDITED_PIXELS = (
    2**26
)  # of all pictures under way: 192 MiB of RGB, some times that at their end


def check_edit(request: GenerateRequest) -> None:
    """Checks every number of the edit that a request is, if it is one.

    Raises:
        RequestError: INVALID_ARGUMENT: a field is out of its range.
    """
    if request.WhichOneof("edit") == "inpaint":
        _check_inpaint(request.inpaint)


def _check_inpaint(inpaint: Inpaint) -> None:
    if inpaint.feather_px > WIDEST_FEATHER_PX:
        raise invalid_field(
            "inpaint.feather_px", expected=f"0 to {WIDEST_FEATHER_PX}", got=inpaint.feather_px
        )
