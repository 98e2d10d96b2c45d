"""Default sampling parameters of a stage: the paper's, overridden by its checkpoint's.

The file `sampling.json` of a checkpoint holds the sampling parameters that give its best images,
such as {"temperature": 0.7}: a small model is less confident than the paper's. Base may have others
for mask-free edits, such as {"temperature": 0.7, "mask_free_edit": {"guidance_scale": 1.75}}.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from muse.common.v1 import decoding_pb2

from services.masked.requests import read_sampling
from services.runtime.checkpoints.documents import read_object
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.wire.errors import RequestError
from services.sampling import SAMPLING_PARAMETERS

FILE_NAME, EDITS = "sampling.json", "mask_free_edit"


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
    defaults = paper_defaults(steps)
    with _malformed(folder):
        own = _content(folder)
        own.pop(EDITS, None)
        defaults.MergeFrom(_parsed(own))
        read_sampling(defaults, defaults)
    return defaults


def edit_defaults(folder: Path) -> decoding_pb2.Sampling:
    """Returns a checkpoint's own sampling parameters for mask-free edits; empty without any.

    Raises:
        CheckpointMismatch: sampling.json is malformed, or a parameter is out of its range.
    """
    with _malformed(folder):
        own = _parsed(_content(folder).get(EDITS, {}))
        if own.HasField("steps") or own.HasField("guidance_scale_start"):
            raise ValueError(f"{EDITS}.steps or guidance_scale_start, which an edit does not have")
        checked = paper_defaults(1)
        checked.MergeFrom(own)
        read_sampling(checked, checked)
    return own


def _content(folder: Path) -> dict[str, Any]:
    file = folder / FILE_NAME
    return read_object(file) if file.is_file() else {}


def _parsed(content: dict[str, Any]) -> decoding_pb2.Sampling:
    own = ParseDict(content, decoding_pb2.Sampling())
    for field, _ in own.ListFields():
        if SAMPLING_PARAMETERS[field.name].request_only:
            raise ValueError(f"{field.name}, which only a request sets")
    return own


@contextmanager
def _malformed(folder: Path) -> Iterator[None]:
    """Makes what is wrong with sampling.json a mismatch of the checkpoint."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, ParseError, RequestError) as error:
        problem = " ".join(str(error).split())  # protobuf's has two lines
        raise CheckpointMismatch(
            f"{folder / FILE_NAME}: expected sampling parameters of muse.common.v1.Sampling in "
            f"their ranges, got {problem}"
        ) from error
