"""The Python SDK: `MuseClient().generate("an owl")`. It imports neither JAX nor the servers."""

from muse.common.v1.claim_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, Claim
from muse.common.v1.decoding_pb2 import Sampling

from muse_client.asynchronous import AsyncMuseClient
from muse_client.blocking import MuseClient
from muse_client.calls import DEFAULT_ADDRESS, Wanted, sampling
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
from muse_client.events import Event, Finished, Picture, Preview, Started, Step

__all__ = [
    "DEFAULT_ADDRESS",
    "PRIORITY_BATCH",
    "PRIORITY_INTERACTIVE",
    "AsyncMuseClient",
    "CheckpointConflict",
    "Claim",
    "DeadlineExceeded",
    "Event",
    "FieldViolation",
    "Finished",
    "ImageFile",
    "InvalidRequest",
    "MuseClient",
    "MuseError",
    "NotFound",
    "NotServed",
    "Overloaded",
    "Picture",
    "Preview",
    "Sampling",
    "Started",
    "Step",
    "Unavailable",
    "Wanted",
    "inpainting",
    "mask_free_editing",
    "outpainting",
    "sampling",
    "variation",
]
