"""Range checks of the sampling parameters of a decode.

Source: protos/muse/common/v1/decoding.proto, which documents the range of each field.
"""

import math
from typing import Any

from muse.common.v1.decoding_pb2 import Sampling

from services.runtime.limits import MAX_STEPS
from services.runtime.wire.errors import invalid_field

MAX_VALUES = {
    "guidance_scale": 100.0,
    "guidance_scale_start": 100.0,
    "temperature": 100.0,
    "choice_temperature": 1000.0,
}


def check_sampling(sampling: Sampling, field: str) -> None:
    """Checks every sampling parameter that is set.

    Args:
        sampling: The sampling parameters.
        field: Path of the message, such as "sampling".

    Raises:
        RequestError: INVALID_ARGUMENT: a parameter is out of its range or not a number.
    """
    if sampling.HasField("steps") and not 1 <= sampling.steps <= MAX_STEPS:
        raise invalid_field(f"{field}.steps", expected=f"1 to {MAX_STEPS}", got=sampling.steps)
    steps = sampling.steps if sampling.HasField("steps") else MAX_STEPS
    if sampling.HasField("min_steps") and not 1 <= sampling.min_steps <= steps:
        raise invalid_field(f"{field}.min_steps", expected=f"1 to {steps}", got=sampling.min_steps)
    parameters: Any = sampling
    for name, max_value in MAX_VALUES.items():
        value = getattr(parameters, name)  # an unset field reads 0, which is in every range
        if not (math.isfinite(value) and 0 <= value <= max_value):
            raise invalid_field(f"{field}.{name}", expected=f"0 to {max_value:g}", got=value)
