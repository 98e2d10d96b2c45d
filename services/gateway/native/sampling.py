"""Sampling parameters of a stage as a model of requests, made from the table of all of them."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from services.sampling import SAMPLING_PARAMETERS, SamplingParameter


def _field(parameter: SamplingParameter) -> tuple[Any, Any]:
    kind = parameter.type
    field = Field(
        None,
        ge=kind(parameter.minimum),
        le=kind(parameter.maximum),
        description=f"{parameter.help}, {parameter.range}; the stage's default if absent.",
    )
    return kind | None, field


if TYPE_CHECKING:

    class SamplingParameters(BaseModel):
        """Sampling parameters of one stage; the stage's defaults where absent."""

else:
    SamplingParameters = create_model(
        "SamplingParameters",
        __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        __doc__="Sampling parameters of one stage; the stage's defaults where absent.",
        __module__=__name__,
        **{  # the request has one seed for both stages
            name: _field(each) for name, each in SAMPLING_PARAMETERS.items() if name != "seed"
        },
    )
