"""A request through the stages: text, base, superres, decode; each image moves on by itself."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import grpc
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.decoding_pb2 import DecodeResult, ProgressDetail, Sampling
from muse.common.v1.stage_pb2 import StageStatus
from muse.orchestrator.v1.orchestrator_pb2 import (
    Accepted,
    DecodeReceipt,
    Done,
    GeneratedImage,
    GenerateRequest,
    GenerateResponse,
    Progress,
    Receipt,
)
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest, EncodeResponse
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest
from PIL import Image

from services.orchestrator.calls import Deadline, call_stage, events, timed
from services.orchestrator.metadata import png_metadata
from services.orchestrator.requests import SEEDS
from services.orchestrator.stages import Stages
from services.runtime.errors import FieldViolation, RequestError, unavailable


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
    """Carries out a complete request; whatever is under way is cancelled when the reader stops.

    Each image moves on by itself and is handed out as soon as it is done. When one fails the
    request fails with its error: the others are cancelled, those handed out before stay valid,
    and there is no `done`. A caller gets the missing ones by their own seeds.

    Args:
        stages: Whom to call.
        request: Checked, with every knob set.
        found: The stages' statuses.
        deadline: Of the request; passed on to each call.

    Raises:
        RequestError: a stage refused, or stayed unavailable.
    """
    begun = time.monotonic()
    yield GenerateResponse(accepted=Accepted(seed=request.seed, count=request.count))
    texts = [request.prompt, *([request.negative_prompt] if request.negative_prompt else [])]
    try:
        encoded = await call_stage(
            "text_encoder",
            lambda left_s: stages.text_encoder.Encode(EncodeRequest(texts=texts), timeout=left_s),
            deadline,
        )
    except RequestError as error:
        raise _in_the_callers_words(error) from error
    encoded.timing.CopyFrom(timed(encoded.timing, begun))
    work = _Work(
        stages=stages,
        request=request,
        encoded=encoded,
        receipt=receipt_of(request, found),
        deadline=deadline,
        events=asyncio.Queue(),
    )
    working = asyncio.create_task(work.all_images())
    try:
        while (response := await work.events.get()) is not None:
            yield response
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    yield GenerateResponse(done=Done(total_s=time.monotonic() - begun, receipt=work.receipt))


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


def _receipt_of(stage: str, result: DecodeResult) -> DecodeReceipt:
    digest = hashlib.sha256(result.tokens.ids).hexdigest()
    return DecodeReceipt(stage=stage, steps=result.steps, tokens=f"sha256:{digest}")


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A request whose text is encoded: what its images have in common.

    Attributes:
        stages: Whom to call.
        request: Checked, with every knob set.
        encoded: Its prompt and, if there is one, its negative prompt.
        receipt: What makes the pictures.
        deadline: Of the request.
        events: What to tell the caller, in order; None at the end.
    """

    stages: Stages
    request: GenerateRequest
    encoded: EncodeResponse
    receipt: Receipt
    deadline: Deadline
    events: asyncio.Queue[GenerateResponse | None]

    async def all_images(self) -> None:
        """Makes all images at once.

        Raises:
            RequestError: one failed; the others were cancelled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(self.request.count):
                    group.create_task(self.image(index))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            self.events.put_nowait(None)

    async def image(self, index: int) -> None:
        """Takes one image through base, superres and tokenizer."""
        request, seed = self.request, (self.request.seed + index) % SEEDS
        self.tell(index, "text_encoder", 1, 1)
        low = await self.decode(index, BaseRequest(), request.base, seed)
        message = SuperresRequest(low_tokens=low.tokens)
        high = await self.decode(index, message, request.superres, seed)
        begun = time.monotonic()
        decoded = await call_stage(
            "tokenizer",
            lambda left_s: self.stages.tokenizer.Decode(
                DecodeRequest(tokens=high.tokens), timeout=left_s
            ),
            self.deadline,
        )
        timings = [self.encoded.timing, low.timing, high.timing, timed(decoded.timing, begun)]
        self.tell(index, "tokenizer", 1, 1)
        height, width = decoded.pixels.shape[:2]

        def png() -> bytes:  # off the event loop: compressing takes many milliseconds
            picture = Image.frombytes("RGB", (width, height), decoded.pixels.data)
            file = io.BytesIO()
            picture.save(file, "PNG", pnginfo=png_metadata(request, seed, self.receipt))
            return file.getvalue()

        image = GeneratedImage(
            index=index,
            seed=seed,
            width_px=width,
            height_px=height,
            png=await asyncio.to_thread(png),
            timings=timings,
            decodes=[_receipt_of("base", low), _receipt_of("superres", high)],
        )
        self.events.put_nowait(GenerateResponse(image=image))

    def tell(self, image: int, stage: str, step: int, total: int) -> None:
        """Tells the caller of a step, if it asked for progress."""
        if self.request.progress:
            progress = Progress(image=image, stage=stage, step=step, total=total)
            self.events.put_nowait(GenerateResponse(progress=progress))

    async def decode(
        self, index: int, message: BaseRequest | SuperresRequest, knobs: Sampling, seed: int
    ) -> DecodeResult:
        """Has base or superres decode one image; no step is told twice, even after a retry.

        A replica that stops hands the decode back; the next try goes on from there.

        Args:
            index: Which image.
            message: What only that stage takes.
            knobs: How to sample.
            seed: Of this image.

        Returns:
            Its result, the timing with the transfer.
        """
        stage = "base" if isinstance(message, BaseRequest) else "superres"
        generate_call = getattr(self.stages, stage).Generate
        message.prompt.CopyFrom(self.encoded.embeddings[0])
        if len(self.encoded.embeddings) > 1:
            message.negative_prompt.CopyFrom(self.encoded.embeddings[1])
        message.sampling.CopyFrom(knobs)
        message.sampling.seed = seed
        message.claim.CopyFrom(self.request.claim)
        if self.request.progress:
            message.progress = ProgressDetail.PROGRESS_DETAIL_STEPS
        begun, told = time.monotonic(), 0

        async def call(left_s: float | None) -> DecodeResult:
            nonlocal told
            result: DecodeResult | None = None
            async with aclosing(events(generate_call(message, timeout=left_s))) as responses:
                async for response in responses:
                    event = response.WhichOneof("event")
                    if event == "result":
                        result = response.result
                    elif event == "handed_back":
                        message.resume.CopyFrom(response.handed_back)
                        raise unavailable(f"stage {stage} stopped before the end")
                    elif response.progress.step > told:
                        told = response.progress.step
                        self.tell(index, stage, told, response.progress.total)
            if result is None:
                raise RequestError(
                    grpc.StatusCode.INTERNAL, f"stage {stage} ended without a result"
                )
            return result

        result = await call_stage(stage, call, self.deadline)
        result.timing.CopyFrom(timed(result.timing, begun))
        return result
