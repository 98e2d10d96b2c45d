"""Cost of calls, in the unit by which load balancing and hedging compare them.

Calls with equal keys take comparable times for each unit of work.
"""

from collections.abc import Hashable
from typing import Any

from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.base.v1.base_pb2 import GenerateResponse as BaseResponse
from muse.common.v1.decoding_pb2 import Sampling
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.superres.v1.superres_pb2 import GenerateResponse as SuperresResponse
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest as TextEncodeRequest
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest
from muse.tokenizer.v1.tokenizer_pb2 import EncodeRequest as TokenizerEncodeRequest


def work_of(request: Any) -> int:
    """Returns the work of a call, at least 1.

    The work of a decode is its remaining steps times the rows of each step (two with guidance);
    every other call counts as 1.
    """
    if not isinstance(request, BaseRequest | SuperresRequest):
        return 1
    parameters = request.sampling
    mask_free = isinstance(request, BaseRequest) and request.HasField("mask_free_edit")
    total = (0 if mask_free else request.resume.total) or parameters.steps
    return max(1, total - request.resume.step) * rows_of(parameters)


def rows_of(parameters: Sampling) -> int:
    """Returns the rows of each step of a decode: two with guidance."""
    return 2 if parameters.guidance_scale or parameters.guidance_scale_start else 1


def latency_key(request: Any) -> Hashable:
    """Returns a key that separates calls of one method whose latencies differ.

    A decode that reports its steps answers sooner than one that does not, and the latencies of the
    tokenizer's two resolutions differ.
    """
    if isinstance(request, BaseRequest | SuperresRequest):
        return bool(request.progress)
    if isinstance(request, DecodeRequest):
        return request.tokens.codebook
    return request.codebook if isinstance(request, TokenizerEncodeRequest) else None


def work_before_response(request: Any) -> int:
    """Returns the work until the first response of a call, in the unit of `work_of`."""
    if isinstance(request, TextEncodeRequest):
        return max(1, len(request.texts))
    if isinstance(request, BaseRequest | SuperresRequest) and request.progress:
        return 1  # a step
    return work_of(request)


def is_preempted(response: Any) -> bool:
    """Returns whether a response is the state of a decode that a draining replica preempted."""
    decoded = isinstance(response, BaseResponse | SuperresResponse)
    return decoded and response.HasField("preempted")
