"""A request through the stages: text, base, superres, decode; each image moves on by itself."""

import asyncio
import io
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.decoding_pb2 import DecodeResult, ProgressDetail, Sampling
from muse.common.v1.stage_pb2 import StageStatus, StageTiming
from muse.common.v1.tensor_pb2 import TextEmbedding
from muse.orchestrator.v1.orchestrator_pb2 import (
    Accepted,
    Done,
    GeneratedImage,
    GenerateRequest,
    GenerateResponse,
    Progress,
    Receipt,
)
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest
from PIL import Image

from services.orchestrator.metadata import png_metadata
from services.orchestrator.requests import SEEDS
from services.orchestrator.stages import Deadline, Stages, events, retried, timed
from services.runtime.errors import FieldViolation, RequestError

Queue = asyncio.Queue[GenerateResponse | None]


def receipt_of(request: GenerateRequest, found: Mapping[str, StageStatus]) -> Receipt:
    """Returns what made the pictures."""
    receipt = Receipt(preset=found["base"].preset, base=request.base, superres=request.superres)
    for status in found.values():
        receipt.checkpoints.update(status.checkpoints)
    return receipt


async def generate(
    stages: Stages,
    request: GenerateRequest,
    found: Mapping[str, StageStatus],
    deadline: Deadline,
) -> AsyncGenerator[GenerateResponse, None]:
    """Carries out a completed request; whatever is under way is cancelled when the reader stops.

    Raises:
        RequestError: a stage refused, or stayed unavailable.
    """
    begun = time.monotonic()
    yield GenerateResponse(accepted=Accepted(seed=request.seed, count=request.count))
    texts = [request.prompt, *([request.negative_prompt] if request.negative_prompt else [])]
    try:
        encoded = await retried(
            "text_encoder",
            lambda left_s: stages.text_encoder.Encode(EncodeRequest(texts=texts), timeout=left_s),
            deadline,
        )
    except RequestError as error:
        raise _in_the_callers_words(error) from error
    text_timing = timed(encoded.timing, begun)
    receipt, queue = receipt_of(request, found), asyncio.Queue[GenerateResponse | None]()
    embeddings: list[TextEmbedding] = list(encoded.embeddings)

    async def all_images() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(request.count):
                    group.create_task(
                        _image(
                            stages,
                            request,
                            embeddings,
                            index,
                            receipt,
                            text_timing,
                            queue,
                            deadline,
                        )
                    )
        finally:
            queue.put_nowait(None)

    work = asyncio.create_task(all_images())
    try:
        while (response := await queue.get()) is not None:
            yield response
        try:
            await work
        except* Exception as group:
            raise group.exceptions[0] from None
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    yield GenerateResponse(done=Done(total_s=time.monotonic() - begun, receipt=receipt))


def _in_the_callers_words(error: RequestError) -> RequestError:
    """Returns the text encoder's refusal with the fields of the request that the caller made."""
    fields = {"texts[0]": "prompt", "texts[1]": "negative_prompt"}
    violations = [
        FieldViolation(fields.get(each.field, each.field), each.description)
        for each in error.violations
    ]
    if not violations:
        return error
    first = violations[0]
    message = f"{first.field}: {first.description}"
    return RequestError(error.code, message, violations=violations)


async def _image(
    stages: Stages,
    request: GenerateRequest,
    embeddings: list[TextEmbedding],
    index: int,
    receipt: Receipt,
    text_timing: StageTiming,
    queue: Queue,
    deadline: Deadline,
) -> None:
    seed = (request.seed + index) % SEEDS
    timings = [text_timing]

    def tell(stage: str, step: int, total: int) -> None:
        if request.progress:
            progress = Progress(image=index, stage=stage, step=step, total=total)
            queue.put_nowait(GenerateResponse(progress=progress))

    async def decode(stage: str, message: Any, knobs: Sampling) -> DecodeResult:
        message.prompt.CopyFrom(embeddings[0])
        if len(embeddings) > 1:
            message.negative_prompt.CopyFrom(embeddings[1])
        message.sampling.CopyFrom(knobs)
        message.sampling.seed = seed
        if request.progress:
            message.progress = ProgressDetail.PROGRESS_DETAIL_STEPS
        begun = time.monotonic()

        async def call(left_s: float | None) -> DecodeResult:
            stub = getattr(stages, stage)
            result = DecodeResult()
            async with aclosing(events(stub.Generate(message, timeout=left_s))) as responses:
                async for response in responses:
                    if response.WhichOneof("event") == "progress":
                        tell(stage, response.progress.step, response.progress.total)
                    else:
                        result = response.result
            return result

        result = await retried(stage, call, deadline)
        timings.append(timed(result.timing, begun))
        return result

    tell("text_encoder", 1, 1)
    low = await decode("base", BaseRequest(), request.base)
    high = await decode("superres", SuperresRequest(low_tokens=low.tokens), request.superres)
    begun = time.monotonic()
    decoded = await retried(
        "tokenizer",
        lambda left_s: stages.tokenizer.Decode(DecodeRequest(tokens=high.tokens), timeout=left_s),
        deadline,
    )
    timings.append(timed(decoded.timing, begun))
    tell("tokenizer", 1, 1)
    height, width = decoded.pixels.shape[:2]

    def png() -> bytes:  # off the event loop: compressing takes many milliseconds
        picture = Image.frombytes("RGB", (width, height), decoded.pixels.data)
        file = io.BytesIO()
        picture.save(file, "PNG", pnginfo=png_metadata(request, seed, receipt))
        return file.getvalue()

    image = GeneratedImage(
        index=index,
        seed=seed,
        width_px=width,
        height_px=height,
        png=await asyncio.to_thread(png),
        timings=timings,
    )
    queue.put_nowait(GenerateResponse(image=image))
