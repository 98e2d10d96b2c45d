"""The one table of sampling parameters: name, type, range, default and help. Imports nothing.

Everything that lists sampling parameters reads this table: the range checks of requests, the
defaults of a checkpoint, the decoder's defaults, and the flags of command lines. The Python SDK
takes the fields of the message `muse.common.v1.Sampling` as keyword arguments; a test compares that
message and its comments with this table.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, make_dataclass
from typing import TYPE_CHECKING, Any

MAX_STEPS = 256  # of one decode
SEEDS = 2**64  # number of seeds: a seed is any 64-bit number


@dataclass(frozen=True)
class SamplingParameter:
    """One sampling parameter.

    Attributes:
        name: Name of its field in `muse.common.v1.Sampling` and in `services.decoding.state`.
        type: Type of its values.
        minimum: Smallest valid value.
        maximum: Largest valid value.
        default: Default in the paper; None if each stage or request has its own.
        help: First sentence of its help on a command line, without range.
        request_only: Whether only a request sets it, and a checkpoint does not.
    """

    name: str
    type: type[int] | type[float]
    minimum: float
    maximum: float
    default: float | None
    help: str
    request_only: bool = False

    @property
    def range(self) -> str:
        """Valid values in words, such as "0 to 100"."""
        return f"{self.minimum:g} to {self.maximum:g}"


_TABLE = (  # name, type, minimum, maximum, default, help
    # 24 steps of base and 8 of superres (Muse, section 2.8).
    SamplingParameter("steps", int, 1, MAX_STEPS, None, "Decoding steps"),
    SamplingParameter("guidance_scale", float, 0, 100, 4.0, "Guidance scale of the last step"),
    # It grows linearly from 0 (Muse, section 2.7).
    SamplingParameter(
        "guidance_scale_start", float, 0, 100, 0.0, "Guidance scale of the first step"
    ),
    SamplingParameter("temperature", float, 0, 100, 1.0, "Temperature of sampling token ids"),
    # 4.5 is not stated in the paper.
    SamplingParameter(
        "choice_temperature",
        float,
        0,
        1000,
        4.5,
        "Scale of the noise on confidences at the first step",
    ),
    # Ids have two bytes on the wire.
    SamplingParameter("top_k", int, 0, 65_536, 0, "Likeliest ids to sample from (0: all)"),
    SamplingParameter("seed", int, 0, SEEDS - 1, 0, "Seed of all random numbers", True),
    # As many as `steps` by default.
    SamplingParameter(
        "min_steps", int, 1, MAX_STEPS, None, "Minimum of steps if the deadline is near", True
    ),
)
SAMPLING_PARAMETERS: Mapping[str, SamplingParameter] = {each.name: each for each in _TABLE}


def paper_default(name: str) -> float:
    """Returns the default of a sampling parameter in the paper.

    Raises:
        ValueError: each stage or request has a default of its own.
    """
    default = SAMPLING_PARAMETERS[name].default
    if default is None:
        raise ValueError(f"{name}: expected a parameter with one default, got one without")
    return default


# Flags that both transformers share; each has a flag of its own for its steps.
_FLAGS = [each for each in _TABLE if not each.request_only and each.name != "steps"]

if TYPE_CHECKING:

    @dataclass(frozen=True, kw_only=True)
    class SamplingFlags:
        """Flags of a command line: one for each sampling parameter, None where it is not given."""

else:
    SamplingFlags = make_dataclass(
        "SamplingFlags",
        [(each.name, each.type | None, None) for each in _FLAGS],
        frozen=True,
        kw_only=True,
        namespace={
            "__module__": __name__,
            "__doc__": "Flags of a command line, None where not given.\n\nAttributes:\n"
            + "\n".join(f"    {each.name}: {each.help}, {each.range}." for each in _FLAGS),
        },
    )


NO_FLAGS = SamplingFlags()


def given(flags: SamplingFlags) -> dict[str, Any]:
    """Returns the sampling parameters that a command line gives, by name."""
    return {name: value for name, value in asdict(flags).items() if value is not None}
