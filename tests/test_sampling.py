"""The table of sampling parameters, and everything that states a sampling parameter besides it."""

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from muse.common.v1.decoding_pb2 import Sampling as SamplingMessage
from muse_client import sampling

from services.decoding.state import Sampling
from services.masked.defaults import paper_defaults
from services.runtime.wire.errors import RequestError
from services.runtime.wire.sampling import check_sampling
from services.sampling import (
    SAMPLING_PARAMETERS,
    SamplingFlags,
    SamplingParameter,
    given,
    paper_default,
)

PROTO = Path(__file__).parents[1] / "protos/muse/common/v1/decoding.proto"
TYPES = {
    FieldDescriptor.TYPE_UINT32: int,
    FieldDescriptor.TYPE_UINT64: int,
    FieldDescriptor.TYPE_FLOAT: float,
}
EACH = pytest.mark.parametrize(
    "parameter", [pytest.param(each, id=name) for name, each in SAMPLING_PARAMETERS.items()]
)


def comment_of(field: str) -> str:
    """Returns the comment of a field of the message `Sampling`."""
    message = PROTO.read_text().split("message Sampling {")[1].split("\n}")[0]
    found = re.search(rf"((?:  //.*\n)+)  optional \w+ {field} = \d+;", message)
    assert found is not None, field
    return re.sub(r"\s*//\s*", " ", found[1])


def test_the_message_has_the_fields_of_the_table_and_their_types() -> None:
    described = SamplingMessage.DESCRIPTOR.fields

    assert {each.name: TYPES[each.type] for each in described} == {
        name: each.type for name, each in SAMPLING_PARAMETERS.items()
    }


@EACH
def test_the_comment_of_a_field_has_its_range_and_default(parameter: SamplingParameter) -> None:
    comment = comment_of(parameter.name).replace(",", "")

    if parameter.name == "seed":
        assert "any 64-bit number" in comment
    elif parameter.name == "min_steps":
        assert "1 to `steps`" in comment
    else:
        assert parameter.range in comment
    if parameter.default is not None:
        assert f"Default: {parameter.default:g}." in comment


def test_a_decode_has_every_parameter_but_the_minimum_of_steps() -> None:
    assert {field.name for field in fields(Sampling)} == SAMPLING_PARAMETERS.keys() - {"min_steps"}


@EACH
def test_the_ends_of_a_range_pass_and_what_lies_beyond_is_refused(
    parameter: SamplingParameter,
) -> None:
    for value in (parameter.minimum, parameter.maximum):
        check_sampling(SamplingMessage(**{parameter.name: parameter.type(value)}), "base")
    beyond = [math.nan, math.inf, -1.0, parameter.maximum * 2] if parameter.type is float else []
    if parameter.type is int and parameter.name != "seed":  # of 64 bits, every number is a seed
        beyond = [parameter.maximum + 1, *([0] if parameter.minimum else [])]
    for value in beyond:
        with pytest.raises(
            RequestError, match=rf"base\.{parameter.name}: expected {parameter.range}"
        ):
            check_sampling(SamplingMessage(**{parameter.name: value}), "base")


def test_the_minimum_of_steps_is_at_most_the_steps() -> None:
    check_sampling(SamplingMessage(steps=4, min_steps=4), "base")

    with pytest.raises(RequestError, match=r"base\.min_steps: expected 1 to 4, got 5"):
        check_sampling(SamplingMessage(steps=4, min_steps=5), "base")


def test_a_checkpoint_without_parameters_has_the_defaults_of_the_table() -> None:
    defaults = paper_defaults(24)

    assert defaults.steps == 24
    for name in ("guidance_scale", "guidance_scale_start", "temperature", "choice_temperature"):
        assert getattr(defaults, name) == paper_default(name)
    assert not defaults.HasField("seed")
    assert not defaults.HasField("min_steps")


def test_a_parameter_without_a_common_default_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="steps: expected a parameter with one default"):
        paper_default("steps")


def test_a_command_line_has_a_flag_for_what_both_transformers_share() -> None:
    names = {field.name for field in fields(SamplingFlags)}

    assert names == SAMPLING_PARAMETERS.keys() - {"steps", "min_steps", "seed"}
    assert given(SamplingFlags()) == {}
    assert given(SamplingFlags(top_k=0)) == {"top_k": 0}  # type: ignore[call-arg]


def test_the_sdk_takes_every_parameter_and_names_one_that_is_none() -> None:
    chosen = sampling(**dict.fromkeys(SAMPLING_PARAMETERS, 1))

    assert {field.name for field, _ in chosen.ListFields()} == SAMPLING_PARAMETERS.keys()
    with pytest.raises(TypeError, match=r"expected some of steps, .* got 'guidance'"):
        sampling(guidance=3)
