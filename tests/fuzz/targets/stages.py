"""Every method of the four stages, on tiny models that compute what is accepted."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message
from muse.base.v1 import base_pb2
from muse.common.v1.decoding_pb2 import (
    PROGRESS_DETAIL_STATES,
    PROGRESS_DETAIL_STEPS,
    Adapter,
    DecodeState,
    Sampling,
)
from muse.superres.v1 import superres_pb2
from muse.text_encoder.v1 import text_encoder_pb2
from muse.tokenizer.v1 import tokenizer_pb2

from services.base import __main__ as base
from services.runtime.wire.tensors import pack_embedding, pack_grid, pack_tensor
from services.stages import generated, service_of
from services.superres import __main__ as superres
from services.text_encoder import __main__ as text_encoder
from services.tokenizer import __main__ as tokenizer
from tests.fuzz.calls import InProcess, check_ending
from tests.fuzz.cases import CHANGED, CHANGED_WITHOUT_TIME, RAW, Case, case_of, read_case
from tests.fuzz.sampling import full_sampling
from tests.tiny_checkpoints import TINY, write_tiny_checkpoints

MODULES = (
    "services.masked",
    "services.runtime.scheduling",
    "services.runtime.server.requests",
    "services.runtime.wire",
    "services.text_encoder.servicer",
    "services.tokenizer.servicer",
)
MAX_BYTES = 2048
GOOD_AGAIN = 64  # cases between two of which a good request must be answered as ever
STATUS = "/GetStatus"


async def opened_stage(name: str, server: Any, settings: Any) -> tuple[InProcess, Any]:
    """Returns a warm stage, and its service."""
    service = await server.build(settings)
    await service.warm_up()
    register = generated(name, f"add_{service_of(name)}Servicer_to_server")
    return InProcess(partial(register, service.servicer)), service


@contextmanager
def opened() -> Iterator[Callable[[bytes], None]]:
    """Yields the check of one case."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        loop, checkpoints = runner.get_loop(), Path(folder)
        names = write_tiny_checkpoints(checkpoints)
        stages, services = {}, []
        for name, server in SERVERS.items():
            settings = server.Settings(checkpoints=checkpoints, port=0, max_batch_size=1)
            stage, service = loop.run_until_complete(opened_stage(name, server, settings))
            stages |= dict.fromkeys(stage.methods, stage)
            services.append(service)
        good = good_requests(names)
        answered = {
            method: payload(loop.run_until_complete(_call(stages, method, requests[0])))
            for method, requests in good.items()
            if not method.endswith(STATUS)
        }
        count = 0

        def check(content: bytes) -> None:
            nonlocal count
            case = read_case(content, good)
            stage, method = stages[case.method], case.method
            check_ending(loop.run_until_complete(stage.call(case)), case.left_s)
            count += 1
            if count % GOOD_AGAIN == 0 and method in answered:
                again = loop.run_until_complete(_call(stages, method, good[method][0]))
                assert payload(again) == answered[method], f"{method} answers something else now"

        try:
            yield check
        finally:
            for service in services:
                loop.run_until_complete(service.close())


async def _call(stages: dict[str, InProcess], method: str, request: Message) -> Any:
    ending = await stages[method].call(Case(method, request.SerializeToString()))
    check_ending(ending)
    assert ending.responses, f"{method} refuses a good request: {ending}"
    return TYPES[method].FromString(ending.responses[-1])


def payload(response: Any) -> bytes:
    """Returns the bytes of a response without its times."""
    for holder in (response, getattr(response, "result", None)):
        if holder is not None and "timing" in holder.DESCRIPTOR.fields_by_name:
            holder.ClearField("timing")
    return bytes(response.SerializeToString(deterministic=True))


SERVERS: dict[str, Any] = {
    "text_encoder": text_encoder,
    "base": base,
    "superres": superres,
    "tokenizer": tokenizer,
}
METHODS = {
    "text": "/muse.text_encoder.v1.TextEncoderService/Encode",
    "base": "/muse.base.v1.BaseService/Generate",
    "superres": "/muse.superres.v1.SuperresService/Generate",
    "encode": "/muse.tokenizer.v1.TokenizerService/Encode",
    "decode": "/muse.tokenizer.v1.TokenizerService/Decode",
}
TYPES: dict[str, Any] = {
    METHODS["text"]: text_encoder_pb2.EncodeResponse,
    METHODS["base"]: base_pb2.GenerateResponse,
    METHODS["superres"]: superres_pb2.GenerateResponse,
    METHODS["encode"]: tokenizer_pb2.EncodeResponse,
    METHODS["decode"]: tokenizer_pb2.DecodeResponse,
}


def good_requests(names: dict[str, str]) -> dict[str, list[Message]]:
    """Returns good requests of every method, given the fingerprints; the first is answered.

    The others name adapters, of which there are none, or a state that was handed out.
    """
    text = np.random.default_rng(0).normal(size=(3, TINY.base.text_hidden)).astype(np.float32)
    prompt = pack_embedding(text, names["encoder"])
    low = np.arange(TINY.base.tokens).reshape(TINY.base.grid, -1) % TINY.base.vocabulary
    high = np.arange(TINY.superres.tokens).reshape(TINY.superres.grid, -1) % TINY.base.vocabulary
    low_tokens, tokens = pack_grid(low, names["low_codebook"]), pack_grid(high, names["codebook"])
    known = bytes([1] * 3 + [0] * (TINY.base.tokens - 3))
    state = DecodeState(tokens=low_tokens, known=known, step=1, unknown=TINY.base.tokens, total=3)
    pixels = pack_tensor(np.zeros((TINY.low_tokenizer.image_size,) * 2 + (3,), np.uint8))
    sampling = full_sampling()
    sampling.seed = 4
    return {
        METHODS["text"]: [text_encoder_pb2.EncodeRequest(texts=["a fox", "two keys"])],
        METHODS["base"]: [
            base_pb2.GenerateRequest(prompt=prompt, sampling=Sampling(steps=2, seed=1)),
            base_pb2.GenerateRequest(
                prompt=prompt,
                negative_prompt=prompt,
                sampling=sampling,
                progress=PROGRESS_DETAIL_STATES,
                adapters=[Adapter(name="fox", weight=1)],
                caller={"id": "acme", "priority": 2},
            ),
            base_pb2.GenerateRequest(prompt=prompt, sampling=Sampling(steps=3), resume=state),
            base_pb2.GenerateRequest(
                prompt=prompt,
                sampling=Sampling(steps=2),
                resume=DecodeState(tokens=low_tokens, known=known),
                mask_free_edit={"fraction": 0.5},
            ),
        ],
        METHODS["superres"]: [
            superres_pb2.GenerateRequest(
                prompt=prompt, low_tokens=low_tokens, sampling=Sampling(steps=1, seed=1)
            ),
            superres_pb2.GenerateRequest(
                prompt=prompt,
                low_tokens=low_tokens,
                sampling=Sampling(steps=2, min_steps=1),
                progress=PROGRESS_DETAIL_STEPS,
                resume={"tokens": tokens, "known": bytes(TINY.superres.tokens)},
            ),
        ],
        METHODS["encode"]: [
            tokenizer_pb2.EncodeRequest(pixels=pixels, codebook=names["low_codebook"])
        ],
        METHODS["decode"]: [tokenizer_pb2.DecodeRequest(tokens=low_tokens)],
        "/muse.base.v1.BaseService/GetStatus": [base_pb2.GetStatusRequest()],
        "/muse.superres.v1.SuperresService/GetStatus": [superres_pb2.GetStatusRequest()],
        "/muse.text_encoder.v1.TextEncoderService/GetStatus": [text_encoder_pb2.GetStatusRequest()],
        "/muse.tokenizer.v1.TokenizerService/GetStatus": [tokenizer_pb2.GetStatusRequest()],
    }


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yields every good request as bytes, and one change of each."""
    good = good_requests(
        {"encoder": "t5:0", "low_codebook": "codebook:0", "codebook": "codebook:1"}
    )
    for method, requests in good.items():
        name = method.rpartition("v1.")[2].replace("/", ".")
        for index, request in enumerate(requests):
            content = request.SerializeToString()
            yield f"{name}-{index}", case_of(method, good, RAW, content)
            yield f"{name}-{index}-changed", case_of(method, good, CHANGED, bytes([index]))
            yield (
                f"{name}-{index}-late",
                case_of(method, good, CHANGED_WITHOUT_TIME, bytes([index, 1, 2, 0, 3, 4, 5, 6])),
            )
