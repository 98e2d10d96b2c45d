"""The size of one dispatch of the device: its requests, and its steps.

A dispatch cannot be interrupted: new requests wait for its end, and the slot of a cancelled request
stays taken until then. Several steps at once save the host's share of each step, which only matters
for short steps; so a dispatch is bounded in steps and in seconds. The bound is higher for a single
row: it bears the host's share alone (a sixth of a step of Muse-3B's base on an H200), and where few
requests arrive, few arrive during the dispatch.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate

MAX_DISPATCH_STEPS = 4
MAX_DISPATCH_S = 0.02
MAX_DISPATCH_ALONE_S = 0.1


def requests_to_advance(
    rows: Sequence[int], *, waiting: bool, row_s: float | None, at_once: int = 1
) -> int:
    """Returns how many of the requests whose turn it is take part in the next dispatch.

    It is all of them, unless several callers share a device whose slots are taken: then a request
    may come that gets a slot at once, and one step of all slots may take as long as it takes alone.
    So many take part as end within `MAX_DISPATCH_S`, at least as many as the device computes at
    once; the others are next.

    Args:
        rows: Rows of a step of each request; at least one request.
        waiting: Whether several callers share the device, and requests wait for a slot.
        row_s: Recent seconds of a step of one row; None if no step was measured yet.
        at_once: Requests that the device computes in the time of one.
    """
    if not waiting or not row_s:
        return len(rows)
    affordable = bisect_right(list(accumulate(rows)), MAX_DISPATCH_S / row_s)
    if affordable >= len(rows):
        return len(rows)
    return min(len(rows), max(1, affordable // at_once) * at_once)


def steps_to_take(
    steps_left: Collection[int], *, stream: bool, waiting: bool, step_s: float | None
) -> int:
    """Returns the number of steps of the next dispatch.

    It never exceeds the steps left of the row that ends first, so that no row ends late. It is one
    step if a caller receives each step, or if a request waits for a slot: a caller may cancel at
    any time, and its slot then becomes free within one step.

    Args:
        steps_left: Steps left of each row in a slot; at least one row.
        stream: Whether a caller receives each step.
        waiting: Whether requests wait because all slots are taken.
        step_s: Recent seconds of a step; None if no step was measured yet.
    """
    first_end = min(steps_left)
    if stream or waiting or step_s is None:
        return min(first_end, 1)
    limit_s = MAX_DISPATCH_ALONE_S if len(steps_left) == 1 else MAX_DISPATCH_S
    affordable = limit_s // step_s if step_s > 0 else MAX_DISPATCH_STEPS
    return min(first_end, max(1, int(min(affordable, MAX_DISPATCH_STEPS))))
