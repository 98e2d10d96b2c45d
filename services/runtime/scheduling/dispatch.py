"""How many steps the device takes before the scheduler looks up again.

A dispatch cannot be interrupted: what arrives meanwhile waits for its end, and a slot whose caller
has gone stays taken till then. Taking several steps at once saves the host's share of each, which
only shows where steps are short; so a dispatch is bounded in steps and in seconds. The bound is
higher for a row that is alone: nobody shares the host's share with it, which was a sixth of its
steps of Muse-3B's base on an H200, and where few come, few come just then.
"""

from collections.abc import Collection

LONGEST_DISPATCH_STEPS = 4
LONGEST_DISPATCH_S = 0.02
LONGEST_DISPATCH_ALONE_S = 0.1


def steps_to_take(
    left: Collection[int], *, watched: bool, waiting: bool, step_s: float | None
) -> int:
    """Returns the steps of the next dispatch.

    No row ends late: it is never more than the row with the least to do has left. It is one step
    if somebody looks in after each, or waits for a slot, which any caller may give up: then the
    slot goes to the next within one step.

    Args:
        left: Steps each row in a slot has left; at least one row.
        watched: Whether a row's steps are told.
        waiting: Whether requests wait, all slots being taken.
        step_s: Seconds a step takes of late; None if nobody knows yet.
    """
    first_end = min(left)
    if watched or waiting or step_s is None:
        return min(first_end, 1)
    longest_s = LONGEST_DISPATCH_ALONE_S if len(left) == 1 else LONGEST_DISPATCH_S
    affordable = longest_s // step_s if step_s > 0 else LONGEST_DISPATCH_STEPS
    return min(first_end, max(1, int(min(affordable, LONGEST_DISPATCH_STEPS))))
