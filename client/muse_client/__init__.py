"""The Python SDK: `MuseClient().generate("an owl")`. It imports neither JAX nor the servers."""

from muse.common.v1.caller_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, Caller
from muse.common.v1.decoding_pb2 import Sampling

from muse_client.asynchronous import AsyncMuseClient
from muse_client.blocking import MuseClient
from muse_client.calls import DEFAULT_ADDRESS, GenerateOptions, sampling
from muse_client.edits import (
    ImageFile,
    inpainting,
    mask_free_editing,
    outpainting,
    variation,
)
from muse_client.errors import (
    CheckpointConflict,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    MuseError,
    NotFound,
    NotServed,
    Overloaded,
    Unavailable,
)
from muse_client.events import (
    Accepted,
    Done,
    Event,
    GeneratedImage,
    MuseWarning,
    Preview,
    Progress,
    RequestWarning,
)
from muse_client.version import __version__

__all__ = [
    "DEFAULT_ADDRESS",
    "PRIORITY_BATCH",
    "PRIORITY_INTERACTIVE",
    "Accepted",
    "AsyncMuseClient",
    "Caller",
    "CheckpointConflict",
    "DeadlineExceeded",
    "Done",
    "Event",
    "FieldViolation",
    "GenerateOptions",
    "GeneratedImage",
    "ImageFile",
    "InvalidRequest",
    "MuseClient",
    "MuseError",
    "MuseWarning",
    "NotFound",
    "NotServed",
    "Overloaded",
    "Preview",
    "Progress",
    "RequestWarning",
    "Sampling",
    "Unavailable",
    "__version__",
    "inpainting",
    "mask_free_editing",
    "outpainting",
    "sampling",
    "variation",
]
