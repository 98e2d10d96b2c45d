"""The knobs a stage takes where a request leaves them open: the paper's, or its checkpoint's own.

A checkpoint may say in `sampling.json` which knobs its pictures come out best with, such as
{"temperature": 0.7}: a small model is less sure of itself than the paper's.
"""

import json
from pathlib import Path

from google.protobuf.json_format import ParseDict, ParseError
from muse.common.v1 import decoding_pb2

from services.masked.requests import read_sampling
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.wire.errors import RequestError

FILE_NAME = "sampling.json"


def paper_defaults(steps: int) -> decoding_pb2.Sampling:
    """Returns the defaults of the paper, every knob set that a checkpoint could know.

    Args:
        steps: The stage's; 24 for base and 8 for superres (Muse, section 2.8).
    """
    return decoding_pb2.Sampling(
        steps=steps,
        guidance=4.0,
        first_guidance=0.0,  # it grows linearly from 0 (Muse, section 2.7)
        temperature=1.0,
        confidence_noise=4.5,  # not stated in the paper
        top_k=0,
    )


def checkpoint_defaults(folder: Path, *, steps: int) -> decoding_pb2.Sampling:
    """Returns the paper's defaults with those of a checkpoint over them.

    Args:
        folder: Of the checkpoint.
        steps: The stage's.

    Raises:
        CheckpointMismatch: its sampling.json holds anything but knobs in their ranges.
    """
    defaults, file = paper_defaults(steps), folder / FILE_NAME
    if not file.is_file():
        return defaults
    try:
        said = ParseDict(json.loads(file.read_text()), decoding_pb2.Sampling())
        if said.HasField("seed") or said.HasField("minimum_steps"):
            raise ValueError("seed or minimum_steps, which are for requests to say")
        defaults.MergeFrom(said)
        read_sampling(defaults, defaults)
    except (ValueError, ParseError, RequestError) as error:
        raise CheckpointMismatch(
            f"{file}: expected knobs of muse.common.v1.Sampling in their ranges, got {error}"
        ) from error
    return defaults
