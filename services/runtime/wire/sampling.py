"""Range checks of the sampling parameters of a decode.

Source: services/sampling.py, the table of their ranges.
"""

from muse.common.v1.decoding_pb2 import Sampling

from services.runtime.wire.errors import invalid_field
from services.sampling import SAMPLING_PARAMETERS


def check_sampling(sampling: Sampling, field: str) -> None:
    """Checks every sampling parameter that a message, at the path `field`, has set.

    Raises:
        RequestError: INVALID_ARGUMENT: a parameter is out of its range or not a number.
    """
    for descriptor, value in sampling.ListFields():
        parameter = SAMPLING_PARAMETERS[descriptor.name]
        if not parameter.minimum <= value <= parameter.maximum:  # NaN is in no range
            raise invalid_field(f"{field}.{parameter.name}", expected=parameter.range, got=value)
    if sampling.HasField("steps") and sampling.min_steps > sampling.steps:
        raise invalid_field(
            f"{field}.min_steps", expected=f"1 to {sampling.steps}", got=sampling.min_steps
        )
