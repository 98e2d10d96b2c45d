"""The Python SDK: `MuseClient().generate("an owl")`. Needs neither JAX nor Flax."""

from muse.common.v1.claim_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, Claim
from muse.common.v1.decoding_pb2 import Sampling

from services.orchestrator.client.asynchronous import AsyncMuseClient
from services.orchestrator.client.blocking import MuseClient
from services.orchestrator.client.calls import Wanted, sampling
from services.orchestrator.client.edits import (
    ImageFile,
    inpainting,
    mask_free_editing,
    outpainting,
    variation,
)
from services.orchestrator.client.errors import (
    CheckpointConflict,
    DeadlineExceeded,
    InvalidRequest,
    MuseError,
    NotFound,
    NotServed,
    Overloaded,
    Unavailable,
)
from services.orchestrator.client.events import Event, Finished, Picture, Preview, Started, Step

__all__ = [
    "PRIORITY_BATCH",
    "PRIORITY_INTERACTIVE",
    "AsyncMuseClient",
    "CheckpointConflict",
    "Claim",
    "DeadlineExceeded",
    "Event",
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
