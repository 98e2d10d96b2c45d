"""Which slot a caller without one takes of a caller that has several.

The request in it is parked: it waits, and goes on from where it was.
"""

from collections import Counter
from typing import Any

from services.runtime.scheduling.slots import InSlots
from services.runtime.wire.caller import Caller


def slots_held(running: InSlots[Any, Any]) -> Counter[str]:
    """Returns the number of slots that each caller holds, by its id."""
    return Counter(state.caller.id for state in running.values())


def slot_to_spare(running: InSlots[Any, Any], newcomer: Caller) -> int | None:
    """Returns the slot to take for a caller without one; None if no caller can spare one.

    Callers with several slots can that are not more urgent. The least urgent of them gives one,
    then the one with most slots: that of its request with the most steps left.

    Args:
        running: Requests that hold a slot, by slot.
        newcomer: Caller that needs a slot.
    """
    held = slots_held(running)
    spare = {
        slot: (state.caller.priority, held[state.caller.id], state.steps_left)
        for slot, state in running.items()
        if state.steps_left > 0
        and held[state.caller.id] > 1
        and state.caller.priority >= newcomer.priority
    }
    return max(spare, key=spare.__getitem__, default=None)
