"""The task of making one image: its calls of base, superres and tokenizer, and its file."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import grpc
import numpy as np
from jaxtyping import UInt8
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.decoding_pb2 import (
    Adapter,
    DecodeProgress,
    DecodeResult,
    ProgressDetail,
)
from muse.common.v1.tensor_pb2 import TextEmbedding, TokenGrid
from muse.orchestrator.v1.orchestrator_pb2 import (
    DecodeProvenance,
    GeneratedImage,
    GenerateRequest,
    GenerateResponse,
    Preview,
    Progress,
    Provenance,
)
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest, EncodeRequest, Resolution

from services.orchestrator.calls import Deadline, Retries, events
from services.orchestrator.expected_time import FastestCalls
from services.orchestrator.metadata import picture_fields, png_metadata
from services.orchestrator.picture_files import FILE_THREADS, FORMATS, picture_file
from services.orchestrator.previews import Show, preview_of
from services.orchestrator.replicas.work import rows_of
from services.orchestrator.request_log import log_blocked
from services.orchestrator.safety import Judged, SafetyCheck, blocked_warning
from services.orchestrator.signing import PictureSigner
from services.orchestrator.stage_clients import StageClients
from services.orchestrator.threads import run_in
from services.orchestrator.timeline import Call, Timeline, timed
from services.pictures.low_resolution import low_resolution_view
from services.runtime.observability.tracing import span
from services.runtime.wire.errors import RequestError, unavailable
from services.runtime.wire.tensors import UINT8, pack_tensor, unpack_tensor
from services.stages import StageName

StepCallback = Callable[[DecodeProgress], Awaitable[None]]


@dataclass(frozen=True)
class FinishedImage:
    """An image that is finished but not yet sent.

    Attributes:
        image: Message of the image, still without its timings.
        pixels: Pixels of the image.
        timeline: Calls that were made for the image.
    """

    image: GeneratedImage
    pixels: UInt8[np.ndarray, "h w 3"]
    timeline: Timeline


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """State that all images of a request share.

    Attributes:
        stages: Clients of the stages.
        request: The checked request, every sampling parameter set.
        embeddings: Embeddings of the prompts that are not empty, by field.
        adapters: The adapters of the request that each stage has, by stage.
        provenance: Provenance that every image carries.
        codebooks: Fingerprint of the codebook of each stage that decodes, by name.
        resolutions: Resolution of the tokenizer of that codebook, by name of the stage.
        deadline: Deadline of the request.
        events: Events for the caller, in order; None at the end.
        candidates: Finished images to rank, of which only the best are sent; None without
            `best_of`.
        calls: Every answered call of the request, once each.
        fastest: The fastest recent calls, of other requests too.
        signer: Signs the files of finished images; None for none.
        safety: Checks finished images; None on a server without a classifier.
    """

    stages: StageClients
    request: GenerateRequest
    embeddings: Mapping[str, TextEmbedding]
    adapters: Mapping[str, Sequence[Adapter]]
    provenance: Provenance
    codebooks: Mapping[StageName, str]
    resolutions: Mapping[StageName, Resolution]
    deadline: Deadline
    events: asyncio.Queue[GenerateResponse | FinishedImage | None]
    candidates: list[FinishedImage] | None = None
    calls: set[Call] = field(default_factory=set)
    fastest: FastestCalls = field(default_factory=FastestCalls)
    signer: PictureSigner | None = None
    safety: SafetyCheck | None = None

    @property
    def has_superres(self) -> bool:
        """Whether superres turns the base's tokens into those of the picture."""
        return "superres" in self.stages.decoding

    @property
    def canvas(self) -> Resolution:
        """Resolution of a whole picture: that of the last stage that decodes."""
        return self.resolutions[self.stages.decoding[-1]]

    async def encode(
        self, canvas: UInt8[np.ndarray, "S S 3"], stage: StageName
    ) -> tuple[TokenGrid, Call]:
        """Encodes a canvas to the tokens that a stage decodes, at their resolution.

        Raises:
            RequestError: the tokenizer refused, or stayed unavailable.
        """
        begun, request = time.monotonic(), EncodeRequest(codebook=self.codebooks[stage])
        pixels = low_resolution_view(canvas, self.resolutions[stage].side_px)
        request.pixels.CopyFrom(pack_tensor(pixels))
        retries = Retries("tokenizer", self.deadline)
        while True:
            async with retries as left_s:
                encoded = await self.stages.tokenizer.Encode(request, timeout=left_s)
                return encoded.tokens, timed(encoded.timing, begun)


@dataclass(frozen=True, kw_only=True)
class ImageTask:
    """The task of making one image of a request.

    Attributes:
        context: State shared with the other images of the request.
        index: Index of the image, from 0.
        seed: Seed of the image.
        timeline: Calls that were made for the image so far.
        decodes: Decodes of the image so far.
        part: Index of the part in progress, from 0.
        parts: Number of parts of the image.
        show: Turns a decoded square into the picture of a preview; the square itself by default.
    """

    context: RequestContext
    index: int
    seed: int
    timeline: Timeline
    decodes: list[DecodeProvenance] = field(default_factory=list)
    part: int = 0
    parts: int = 1
    show: Show | None = None

    def fork(self, part: int, parts: int) -> "ImageTask":
        """Returns a copy that continues independently, as one of several parts."""
        timeline, decodes = self.timeline.fork(), list(self.decodes)
        return replace(self, timeline=timeline, decodes=decodes, part=part, parts=parts)

    def add_calls(self, *calls: Call) -> None:
        """Adds concurrent calls to the timeline of the image and to the request's calls."""
        self.timeline.add(calls)
        self.context.calls.update(calls)

    def report_step(
        self, stage: str, step: int, total: int, preview: Preview | None = None
    ) -> None:
        """Sends a Progress event, if the caller asked for progress or the step has a preview."""
        if self.context.request.progress or preview is not None:
            progress = Progress(
                image=self.index,
                stage=stage,
                step=step,
                total=total,
                part=self.part,
                parts=self.parts,
                preview=preview,
            )
            self.context.events.put_nowait(GenerateResponse(progress=progress))

    async def pixels(
        self, tokens: TokenGrid, *, concurrent: bool = False
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Decodes a complete grid with the tokenizer; `concurrent` if a decode goes on meanwhile.

        Raises:
            RequestError: the tokenizer refused, or stayed unavailable.
        """
        begun, request = time.monotonic(), DecodeRequest(tokens=tokens)
        retries = Retries("tokenizer", self.context.deadline)
        while True:
            async with retries as left_s:
                decoded = await self.context.stages.tokenizer.Decode(request, timeout=left_s)
                break
        self.context.fastest.measure(decoded.timing)
        call = timed(decoded.timing, begun)
        if concurrent:
            self.timeline.concurrent.append(call)
            self.context.calls.add(call)
        else:
            self.add_calls(call)
        return unpack_tensor(
            decoded.pixels, field="pixels", data_types=(UINT8,), shape=(None, None, 3)
        )

    async def deliver(
        self, pixels: UInt8[np.ndarray, "h w 3"], *, iteration: int | None = None
    ) -> None:
        """Sends the finished image to the caller, or adds it to the candidates of `best_of`.

        If the safety policy blocks the image, a warning is sent instead. A mask-free edit names the
        iteration after which the image was taken.
        """
        context = self.context

        self.report_step("tokenizer", 1, 1)
        judged = None if context.safety is None else await context.safety.judge(pixels)
        if judged is not None:
            if judged.pixels is None:
                log_blocked(self.index, self.seed, judged.score)
                warning = blocked_warning(self.index, self.seed)
                context.events.put_nowait(GenerateResponse(warning=warning))
                return
            pixels = judged.pixels
        height, width = pixels.shape[:2]
        with span("picture file"):  # off the event loop: compressing takes many milliseconds
            content = await run_in(FILE_THREADS, partial(self._file, pixels, judged))
        is_png = FORMATS[context.request.picture_format] == "PNG"
        image = GeneratedImage(
            index=self.index,
            seed=self.seed,
            width_px=width,
            height_px=height,
            png=content if is_png else b"",
            file=b"" if is_png else content,
            decodes=self.decodes,
            iteration=iteration,
            safety_score=None if judged is None else judged.score,
            blurred=judged is not None and judged.blurred,
        )
        finished = FinishedImage(image, pixels, self.timeline)
        if context.candidates is None:
            context.events.put_nowait(finished)
        else:
            context.candidates.append(finished)

    def _file(self, pixels: UInt8[np.ndarray, "h w 3"], judged: Judged | None) -> bytes:
        """Returns the file of the finished image, signed if there is a signer."""
        request, signer, fields = self.context.request, self.context.signer, self._fields()
        if judged is not None:
            fields["safety_score"] = f"{judged.score:.4f}"
            fields["safety_action"] = "blurred" if judged.blurred else ""
        content = picture_file(pixels, fields, request)
        if signer is None:
            return content
        return signer.signed(content, FORMATS[request.picture_format], fields)

    def _fields(self) -> dict[str, str]:
        """Returns what the files of the image and of its previews say of their origin."""
        return picture_fields(self.context.request, self.seed, self.context.provenance)

    async def decode(
        self,
        message: BaseRequest | SuperresRequest,
        *,
        seed: int | None = None,
        on_step: StepCallback | None = None,
    ) -> TokenGrid:
        """Decodes tokens with base or superres; each step is reported once, even after a retry.

        Its deadline leaves the least time that the stages after it take, so that a stage that
        cannot end by then refuses the decode, and a decode that does not is given up.

        A replica that drains returns the state of the decode, and the next try resumes from it.
        Fields that both stages' messages share are set here, with the image's seed by default.
        `on_step` is awaited with the progress of each step and the state after it.

        Returns:
            The complete grid.

        Raises:
            RequestError: the stage refused, or stayed unavailable.
        """
        stage = _stage_of(message)
        self._complete(message, stage, seed, on_step)
        context = self.context
        rest_s = context.fastest.after(stage, context.request)
        stub, retries = getattr(context.stages, stage), Retries(stage, context.deadline)
        begun, reported, followed = time.monotonic(), 0, 0
        while True:
            async with (
                retries as left_s,
                aclosing(
                    events(stub.Generate(message, timeout=_without(rest_s, left_s)))
                ) as responses,
            ):
                result: DecodeResult | None = None
                async for response in responses:
                    event = response.WhichOneof("event")
                    if event == "result":
                        result = response.result
                    elif event == "preempted":
                        message.resume.CopyFrom(response.preempted)
                        raise unavailable(f"stage {stage} stopped before the end")
                    else:
                        # What follows a step may call the tokenizer. If that fails, the next try
                        # comes to the step again, and does what is not done yet.
                        step = response.progress.step
                        if step > reported:
                            preview = await self._preview(message, response.progress)
                            self.report_step(stage, step, response.progress.total, preview)
                            reported = step
                        if on_step is not None and step > followed:
                            await on_step(response.progress)
                            followed = step
                if result is None:
                    raise RequestError(
                        grpc.StatusCode.INTERNAL, f"stage {stage} ended without a result"
                    )
                self._record(message, result, begun)
                return result.tokens

    def _record(
        self, message: BaseRequest | SuperresRequest, result: DecodeResult, begun: float
    ) -> None:
        """Records the timing of a decode and the digest of its tokens."""
        stage = _stage_of(message)
        if not message.resume.step:  # otherwise another replica did a part of it
            self.context.fastest.measure(
                result.timing, rows=rows_of(message.sampling), steps=result.steps
            )
        self.add_calls(timed(result.timing, begun))
        digest = hashlib.sha256(result.tokens.ids).hexdigest()
        self.decodes.append(
            DecodeProvenance(stage=stage, steps=result.steps, tokens=f"sha256:{digest}")
        )

    def _complete(
        self,
        message: BaseRequest | SuperresRequest,
        stage: str,
        seed: int | None,
        on_step: StepCallback | None,
    ) -> None:
        """Sets the fields that the requests of base and superres share."""
        context = self.context
        for prompt, embedding in context.embeddings.items():
            getattr(message, prompt).CopyFrom(embedding)
        message.sampling.CopyFrom(getattr(context.request, stage))
        message.sampling.seed = self.seed if seed is None else seed
        message.caller.CopyFrom(context.request.caller)
        message.adapters.extend(context.adapters[stage])
        if on_step is not None or context.request.preview_every:
            message.progress = ProgressDetail.PROGRESS_DETAIL_STATES
        elif context.request.progress:
            message.progress = ProgressDetail.PROGRESS_DETAIL_STEPS

    async def _preview(
        self, message: BaseRequest | SuperresRequest, progress: DecodeProgress
    ) -> Preview | None:
        """Returns the preview of a step; None for a step without one."""
        every = self.context.request.preview_every
        if not every or (progress.step % every and progress.step != progress.total):
            return None
        resampled = isinstance(message, BaseRequest) and message.HasField("mask_free_edit")
        pixels = await self.pixels(progress.state.tokens, concurrent=True)
        # Off the event loop, since `show` may take many milliseconds.
        write = partial(
            preview_of,
            progress.state,
            pixels,
            all_known=resampled,
            metadata=png_metadata(self._fields()),
            show=self.show,
        )
        return await run_in(FILE_THREADS, write)


def _stage_of(message: BaseRequest | SuperresRequest) -> str:
    return "base" if isinstance(message, BaseRequest) else "superres"


def _without(rest_s: float, left_s: float | None) -> float | None:
    """Returns the seconds left without those of the rest; None without a limit."""
    return None if left_s is None else max(0.0, left_s - rest_s)


ImageHandler = Callable[[ImageTask], Coroutine[Any, Any, None]]
"""Makes one image of a request and delivers it."""
