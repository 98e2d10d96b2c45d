"""Targets of load: the whole system through its public API, or one stage directly."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import grpc
from muse.base.v1 import base_pb2
from muse.common.v1.decoding_pb2 import Sampling
from muse.common.v1.stage_pb2 import StageTiming
from muse.common.v1.tensor_pb2 import TextEmbedding, TokenGrid
from muse.superres.v1 import superres_pb2
from muse.text_encoder.v1 import text_encoder_pb2
from muse.tokenizer.v1 import tokenizer_pb2
from muse_client import AsyncMuseClient, Tls, sampling
from muse_client.channels import asynchronous_channels

from services.runtime.wire.errors import read_error
from services.stages import DECODING, STAGES, StageName
from tools.bench.arrivals import Kind

NEGATIVE_PROMPT = "a fox"


Send = Callable[[Kind, int], Awaitable[Sequence[StageTiming]]]
"""Sends one request of a kind with a seed, waits for its end and returns its timings by stage.

Raises grpc.aio.AioRpcError or MuseError if the request failed.
"""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs for calling each stage directly: a text, embeddings, and grids.

    `low` is of base, `high` of the last stage that decodes, which makes the picture.
    """

    text: str
    prompt: TextEmbedding
    negative: TextEmbedding
    low: TokenGrid
    high: TokenGrid


async def _send_to_all(
    client: AsyncMuseClient, prompt: str, stages: Collection[str], kind: Kind, seed: int
) -> Sequence[StageTiming]:
    """Generates one image through the public API of a system with these stages."""
    guidance_scale = kind.guidance_scale if "superres" in stages else None
    (picture,) = await client.generate(
        prompt,
        negative_prompt=NEGATIVE_PROMPT if kind.negative else "",
        seed=seed,
        base=sampling(steps=kind.steps, guidance_scale=kind.guidance_scale),
        superres=sampling(steps=kind.superres_steps, guidance_scale=guidance_scale),
    )
    return picture.timings


async def _send_to_stage(
    stage: StageName, stub: Any, inputs: Inputs, timeout_s: float, kind: Kind, seed: int
) -> Sequence[StageTiming]:
    """Sends a stage's own request: encode a text, decode a grid, or generate one."""
    if stage == "text_encoder":
        texts = [inputs.text, *([NEGATIVE_PROMPT] if kind.negative else [])]
        request: Any = text_encoder_pb2.EncodeRequest(texts=texts)
        return [(await stub.Encode(request, timeout=timeout_s)).timing]
    if stage == "tokenizer":
        request = tokenizer_pb2.DecodeRequest(tokens=inputs.high)
        return [(await stub.Decode(request, timeout=timeout_s)).timing]
    steps = kind.steps if stage == "base" else kind.superres_steps
    parameters = sampling(steps=steps, guidance_scale=kind.guidance_scale, seed=seed)
    request = decode_request(stage, inputs, parameters, negative=bool(kind.negative))
    return [(await result_of(stub.Generate(request, timeout=timeout_s))).timing]


def decode_request(stage: str, inputs: Inputs, parameters: Sampling, *, negative: bool) -> Any:
    """Returns the request of base or superres."""
    if stage == "base":
        request: Any = base_pb2.GenerateRequest(prompt=inputs.prompt, sampling=parameters)
    else:
        request = superres_pb2.GenerateRequest(
            prompt=inputs.prompt, sampling=parameters, low_tokens=inputs.low
        )
    if negative:
        request.negative_prompt.CopyFrom(inputs.negative)
    return request


async def result_of(call: Any) -> Any:
    """Reads the stream of a decode to its result."""
    try:
        result = None
        async for response in call:
            if response.WhichOneof("event") == "result":
                result = response.result
        if result is None:
            raise RuntimeError("the stage ended its stream without a result")
        return result
    finally:
        call.cancel()


async def prepare_inputs(channels: dict[str, grpc.aio.Channel], text: str) -> Inputs:
    """Makes the inputs of each stage with text encoder, base and, if there is one, superres.

    Raises:
        grpc.aio.AioRpcError: a stage refused or is unavailable.
    """
    texts = text_encoder_pb2.EncodeRequest(texts=[text, NEGATIVE_PROMPT])
    encoded = await STAGES["text_encoder"].stub(channels["text_encoder"]).Encode(texts)
    prompt, negative = encoded.embeddings
    inputs = Inputs(text=text, prompt=prompt, negative=negative, low=TokenGrid(), high=TokenGrid())
    for stage in (each for each in DECODING if each in channels):
        request = decode_request(stage, inputs, Sampling(), negative=False)
        decoded = await result_of(STAGES[stage].stub(channels[stage]).Generate(request))
        low = decoded.tokens if stage == "base" else inputs.low
        inputs = replace(inputs, low=low, high=decoded.tokens)
    return inputs


@asynccontextmanager
async def open_target(
    stage: StageName | Literal["whole"],
    server: str,
    prompt: str,
    *,
    timeout_s: float,
    tls: Tls | None = None,
) -> AsyncIterator[Send]:
    """Connects to the whole system, or to a stage that the orchestrator at `server` calls.

    Yields what sends a request, each with a deadline of `timeout_s` seconds. `tls` holds for the
    stages, too; None is plain text.

    Raises:
        MuseError, RequestError: the orchestrator or a stage refused or is unavailable.
        ValueError: the system has no such stage.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            AsyncMuseClient(server, timeout_s=timeout_s, tls=tls)
        )
        status = await client.status()
        names = [report.stage for report in status.stages]
        if stage == "whole":
            yield partial(_send_to_all, client, prompt, names)
            return
        if stage not in names:
            raise ValueError(f"stage: expected one of {names}, which {server} calls, got {stage!r}")
        stage_tls = None if tls is None else replace(tls, server_name="")
        channels = {
            report.stage: await stack.enter_async_context(
                asynchronous_channels(report.address, stage_tls).current()
            )
            for report in status.stages
        }
        try:
            inputs = await prepare_inputs(channels, prompt)
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from error
        stub = STAGES[stage].stub(channels[stage])
        yield partial(_send_to_stage, stage, stub, inputs, timeout_s)
