"""Whether the knobs of a decode are in their ranges.

Source: protos/muse/common/v1/decoding.proto, which says what each field may hold.
"""

import math
from typing import Any

from muse.common.v1.decoding_pb2 import Sampling

from services.runtime.wire.errors import invalid_field

MOST_STEPS = 256
LARGEST = {
    "guidance": 100.0,
    "first_guidance": 100.0,
    "temperature": 100.0,
    "confidence_noise": 1000.0,
}


def check_knobs(sampling: Sampling, field: str) -> None:
    """Checks every knob that is set.

    Args:
        sampling: The knobs.
        field: Path of the message, such as "sampling".

    Raises:
        RequestError: INVALID_ARGUMENT: a knob is out of its range or not a number.
    """
    if sampling.HasField("steps") and not 1 <= sampling.steps <= MOST_STEPS:
        raise invalid_field(f"{field}.steps", expected=f"1 to {MOST_STEPS}", got=sampling.steps)
    most = sampling.steps if sampling.HasField("steps") else MOST_STEPS
    if sampling.HasField("minimum_steps") and not 1 <= sampling.minimum_steps <= most:
        raise invalid_field(
            f"{field}.minimum_steps", expected=f"1 to {most}", got=sampling.minimum_steps
        )
    knobs: Any = sampling
    for name, largest in LARGEST.items():
        value = getattr(knobs, name)  # 0, which is in every range, if it is not set
        if not (math.isfinite(value) and 0 <= value <= largest):
            raise invalid_field(f"{field}.{name}", expected=f"0 to {largest:g}", got=value)
