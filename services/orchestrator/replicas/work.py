"""What calls ask of a replica, in the unit in which replicas of a stage are compared.

Calls of one kind take times that are comparable too, for each unit of work.
"""

from collections.abc import Hashable
from typing import Any

from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.base.v1.base_pb2 import GenerateResponse as BaseResponse
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.superres.v1.superres_pb2 import GenerateResponse as SuperresResponse
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest as TextEncodeRequest
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest
from muse.tokenizer.v1.tokenizer_pb2 import EncodeRequest as TokenizerEncodeRequest


def work_of(request: Any) -> int:
    """Returns what a call asks of a replica, at least 1.

    Args:
        request: Of base or superres, with its knobs set: steps that are left, times the rows that
            each computes (two with guidance). Of any other call: 1.
    """
    if not isinstance(request, BaseRequest | SuperresRequest):
        return 1
    knobs = request.sampling
    edited = isinstance(request, BaseRequest) and request.HasField("mask_free_edit")
    total = (0 if edited else request.resume.total) or knobs.steps
    rows = 2 if knobs.guidance_scale or knobs.guidance_scale_start else 1
    return max(1, total - request.resume.step) * rows


def kind_of(request: Any) -> Hashable:
    """Returns what, of calls of one method, those have in common that take comparable times.

    Args:
        request: Of any call; a decode that tells its steps answers sooner than one that does not,
            and the tokenizer's two resolutions differ.
    """
    if isinstance(request, BaseRequest | SuperresRequest):
        return bool(request.progress)
    if isinstance(request, DecodeRequest):
        return request.tokens.codebook
    return request.codebook if isinstance(request, TokenizerEncodeRequest) else None


def work_before_answer(request: Any) -> int:
    """Returns what a replica has to do before the call's first answer, as `work_of` counts it."""
    if isinstance(request, TextEncodeRequest):
        return max(1, len(request.texts))
    if isinstance(request, BaseRequest | SuperresRequest) and request.progress:
        return 1  # a step
    return work_of(request)


def gives_up(answer: Any) -> bool:
    """Returns whether an answer is that of a replica that stops and hands a decode back."""
    decoded = isinstance(answer, BaseResponse | SuperresResponse)
    return decoded and answer.HasField("preempted")
