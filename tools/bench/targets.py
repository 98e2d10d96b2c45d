"""What is loaded: the whole system through its public API, or one stage by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import grpc
from muse.base.v1 import base_pb2
from muse.common.v1.decoding_pb2 import Sampling
from muse.common.v1.stage_pb2 import StageTiming
from muse.common.v1.tensor_pb2 import TextEmbedding, TokenGrid
from muse.superres.v1 import superres_pb2
from muse.text_encoder.v1 import text_encoder_pb2
from muse.tokenizer.v1 import tokenizer_pb2
from muse_client import AsyncMuseClient, sampling

from services.stages import DECODING, STAGES, StageName
from tools.bench.arrivals import Kind

NEGATIVE_PROMPT = "a fox"


class Target(Protocol):
    """Something that answers requests."""

    async def send(self, kind: Kind, seed: int) -> Sequence[StageTiming]:
        """Sends one request and waits for its whole answer.

        Returns:
            Where its time went, by stage.

        Raises:
            grpc.aio.AioRpcError, MuseError: it was refused or failed.
        """


@dataclass(frozen=True)
class WholeTarget:
    """The whole system: a prompt to a picture.

    Attributes:
        client: Calls it; its time-out is that of each request.
        prompt: Of every picture.
    """

    client: AsyncMuseClient
    prompt: str

    async def send(self, kind: Kind, seed: int) -> Sequence[StageTiming]:
        """Generates one picture."""
        (picture,) = await self.client.generate(
            self.prompt,
            negative_prompt=NEGATIVE_PROMPT if kind.negative else "",
            seed=seed,
            base=sampling(steps=kind.steps, guidance_scale=kind.guidance_scale),
            superres=sampling(steps=kind.superres_steps, guidance_scale=kind.guidance_scale),
        )
        return picture.timings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stages are fed when each is driven by itself.

    Attributes:
        text: The prompt.
        prompt: Embedding of the prompt.
        negative: Embedding of the negative prompt.
        low: A low-resolution grid.
        high: A high-resolution grid.
    """

    text: str
    prompt: TextEmbedding
    negative: TextEmbedding
    low: TokenGrid
    high: TokenGrid


class StageTarget:
    """One stage, called directly with what the stages before it made once."""

    def __init__(
        self, stage: StageName, channel: grpc.aio.Channel, inputs: Inputs, *, timeout_s: float
    ) -> None:
        """Drives one stage.

        Args:
            stage: Its name, such as "base".
            channel: To it.
            inputs: What it is fed.
            timeout_s: Seconds each request may take.
        """
        self._stage, self._inputs, self._timeout_s = stage, inputs, timeout_s
        self._stub = STAGES[stage].stub(channel)

    async def send(self, kind: Kind, seed: int) -> Sequence[StageTiming]:
        """Sends the stage's own request: encode a text, decode a grid, or generate one."""
        if self._stage == "text_encoder":
            texts = [self._inputs.text, *([NEGATIVE_PROMPT] if kind.negative else [])]
            request: Any = text_encoder_pb2.EncodeRequest(texts=texts)
            return [(await self._stub.Encode(request, timeout=self._timeout_s)).timing]
        if self._stage == "tokenizer":
            request = tokenizer_pb2.DecodeRequest(tokens=self._inputs.high)
            return [(await self._stub.Decode(request, timeout=self._timeout_s)).timing]
        steps = kind.steps if self._stage == "base" else kind.superres_steps
        parameters = sampling(steps=steps, guidance_scale=kind.guidance_scale, seed=seed)
        request = decode_request(
            self._stage, self._inputs, parameters, negative=bool(kind.negative)
        )
        call = self._stub.Generate(request, timeout=self._timeout_s)
        return [(await result_of(call)).timing]


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
    """Reads a decode's stream to its result."""
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
    """Sends one prompt through text encoder, base and superres, to have inputs for each stage.

    Args:
        channels: To every stage, by name.
        text: The prompt.

    Raises:
        grpc.aio.AioRpcError: a stage refused or is away.
    """
    texts = text_encoder_pb2.EncodeRequest(texts=[text, NEGATIVE_PROMPT])
    encoded = await STAGES["text_encoder"].stub(channels["text_encoder"]).Encode(texts)
    prompt, negative = encoded.embeddings
    inputs = Inputs(text=text, prompt=prompt, negative=negative, low=TokenGrid(), high=TokenGrid())
    for stage, grid in zip(DECODING, ("low", "high"), strict=True):
        request = decode_request(stage, inputs, Sampling(), negative=False)
        decoded = await result_of(STAGES[stage].stub(channels[stage]).Generate(request))
        inputs = replace(inputs, **{grid: decoded.tokens})
    return inputs
