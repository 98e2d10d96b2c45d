"""Default sampling parameters of a stage: the paper's, overridden by its checkpoint's.

The file `sampling.json` of a checkpoint holds the sampling parameters that give its best images,
such as {"temperature": 0.7}: a small model is less confident than the paper's.
"""

import json
from pathlib import Path

from google.protobuf.json_format import ParseDict, ParseError
from muse.common.v1 import decoding_pb2

from services.masked.requests import read_sampling
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.wire.errors import RequestError
from services.sampling import SAMPLING_PARAMETERS

FILE_NAME = "sampling.json"


def paper_defaults(steps: int) -> decoding_pb2.Sampling:
    """Returns the paper's sampling parameters: all that a checkpoint may set."""
    defaults = decoding_pb2.Sampling(steps=steps)
    for name, parameter in SAMPLING_PARAMETERS.items():
        if parameter.default is not None and not parameter.request_only:
            setattr(defaults, name, parameter.default)
    return defaults


def checkpoint_defaults(folder: Path, *, steps: int) -> decoding_pb2.Sampling:
    """Returns the paper's sampling parameters, overridden by those of a checkpoint.

    Raises:
        CheckpointMismatch: sampling.json is malformed, or a parameter is out of its range.
    """
    defaults, file = paper_defaults(steps), folder / FILE_NAME
    if not file.is_file():
        return defaults
    try:
        own = ParseDict(json.loads(file.read_text()), decoding_pb2.Sampling())
        for field, _ in own.ListFields():
            if SAMPLING_PARAMETERS[field.name].request_only:
                raise ValueError(f"{field.name}, which only a request sets")
        defaults.MergeFrom(own)
        read_sampling(defaults, defaults)
    except (ValueError, ParseError, RequestError) as error:
        raise CheckpointMismatch(
            f"{file}: expected sampling parameters of muse.common.v1.Sampling in their ranges, "
            f"got {error}"
        ) from error
    return defaults
