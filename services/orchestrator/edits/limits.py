"""Whether the numbers of an edit are in their ranges, before its picture is looked at."""

import math

from muse.orchestrator.v1.orchestrator_pb2 import (
    GenerateRequest,
    Inpaint,
    MaskFreeEdit,
    Outpaint,
    Vary,
)

from services.runtime.wire.errors import invalid_field
from services.sampling import MAX_STEPS

LONGEST_SIDE_PX = 16_384
MOST_PIXELS = 2**24  # 48 MiB of RGB: even as a PNG that cannot be compressed it fits a message
MOST_EDITED_PIXELS = 2**26  # of all under way: 192 MiB of RGB, some times that at their end
MOST_WAITING_BYTES = 2**27  # of all that wait for that; any one fits
WIDEST_FEATHER_PX = 1024
MOST_ITERATIONS = MAX_STEPS  # they are the steps of base
MOST_KEPT = 16
BORDERS = ("left_px", "top_px", "right_px", "bottom_px")


def check_edit(request: GenerateRequest) -> None:
    """Checks every number of the edit that a request is, if it is one.

    Raises:
        RequestError: INVALID_ARGUMENT: a field is out of its range.
    """
    edit = request.WhichOneof("edit")
    if edit == "inpaint":
        _check_inpaint(request.inpaint)
    elif edit == "outpaint":
        _check_outpaint(request.outpaint)
    elif edit == "mask_free_edit":
        _check_mask_free(request.mask_free_edit)
        for knob in ("steps", "min_steps"):
            if request.base.HasField(knob):
                raise invalid_field(
                    f"base.{knob}",
                    expected="not set in a mask-free edit",
                    got=getattr(request.base, knob),
                    advice="set mask_free_edit.iterations",
                )
    elif edit == "vary":
        _check_vary(request.vary)


def _check_inpaint(inpaint: Inpaint) -> None:
    if inpaint.feather_px > WIDEST_FEATHER_PX:
        raise invalid_field(
            "inpaint.feather_px", expected=f"0 to {WIDEST_FEATHER_PX}", got=inpaint.feather_px
        )


def _check_outpaint(outpaint: Outpaint) -> None:
    added = {border: getattr(outpaint, border) for border in BORDERS}
    for border, pixels in added.items():
        if pixels > LONGEST_SIDE_PX:
            raise invalid_field(
                f"outpaint.{border}", expected=f"0 to {LONGEST_SIDE_PX}", got=pixels
            )
    if not any(added.values()):
        raise invalid_field("outpaint", expected="pixels to add on a side", got="0 on all four")


def _check_mask_free(edit: MaskFreeEdit) -> None:
    field = "mask_free_edit"
    if edit.HasField("iterations") and not 1 <= edit.iterations <= MOST_ITERATIONS:
        raise invalid_field(
            f"{field}.iterations", expected=f"1 to {MOST_ITERATIONS}", got=edit.iterations
        )
    if edit.HasField("strength"):
        if edit.HasField("iterations"):
            raise invalid_field(
                f"{field}.strength", expected="not set beside iterations", got=edit.strength
            )
        _check_share(f"{field}.strength", edit.strength)
    if edit.HasField("fraction"):
        _check_share(f"{field}.fraction", edit.fraction)
    if len(edit.return_iterations) > MOST_KEPT:
        raise invalid_field(
            f"{field}.return_iterations",
            expected=f"at most {MOST_KEPT}",
            got=len(edit.return_iterations),
        )
    last = iterations_of(edit)
    for kept in edit.return_iterations:
        if kept > last:
            raise invalid_field(f"{field}.return_iterations", expected=f"0 to {last}", got=kept)


def _check_vary(vary: Vary) -> None:
    if vary.HasField("strength"):
        _check_share("vary.strength", vary.strength)


def _check_share(field: str, share: float) -> None:
    if not (math.isfinite(share) and 0 < share <= 1):
        raise invalid_field(field, expected="more than 0 to 1", got=share)


def iterations_of(edit: MaskFreeEdit) -> int:
    """Returns the iterations of a mask-free edit (Muse, section 3.3.2: 100 by default)."""
    if edit.HasField("strength"):
        return max(1, round(200 * edit.strength))
    return edit.iterations if edit.HasField("iterations") else 100


def kept_of(edit: MaskFreeEdit) -> list[int]:
    """Returns the iterations after which a mask-free edit is returned: the last one always."""
    return sorted({*edit.return_iterations, iterations_of(edit)})
