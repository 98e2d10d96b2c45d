"""One picture of a request on its way: its calls of base, superres and tokenizer, and its file."""

import asyncio
import hashlib
import io
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np
from jaxtyping import UInt8
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.decoding_pb2 import (
    DecodeProgress,
    DecodeResult,
    ProgressDetail,
    Sampling,
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
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest, EncodeRequest
from PIL import Image

from services.orchestrator.calls import Deadline, Retries, events
from services.orchestrator.metadata import png_metadata
from services.orchestrator.previews import Show, preview_of
from services.orchestrator.stage_clients import Resolution, StageClients
from services.orchestrator.timeline import Call, Timeline, timed
from services.runtime.observability.tracing import span
from services.runtime.wire.errors import RequestError, unavailable
from services.runtime.wire.tensors import UINT8, pack_tensor, unpack_tensor

LARGE_PICTURE = 2**20  # pixels from which zlib's usual effort would take seconds

Watch = Callable[[DecodeProgress], Awaitable[None]]


@dataclass(frozen=True)
class Painted:
    """A finished picture that is not handed out yet.

    Attributes:
        image: The message, which does not say yet where its time went.
        pixels: Its pixels.
        timeline: Where its time went so far.
    """

    image: GeneratedImage
    pixels: UInt8[np.ndarray, "h w 3"]
    timeline: Timeline


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The prompts of a request, encoded.

    Attributes:
        prompt: What the pictures show; None if nothing is said of that.
        negative_prompt: What they must not show, if anything is said of that.
        call: What encoded them; None if there was nothing to encode.
    """

    prompt: TextEmbedding | None
    negative_prompt: TextEmbedding | None
    call: Call | None


@dataclass(frozen=True, kw_only=True)
class Work:
    """A request whose text is encoded: what its pictures have in common.

    Attributes:
        stages: Whom to call.
        request: Checked, with every knob set.
        texts: Its prompts.
        provenance: What makes the pictures.
        resolutions: Of the tokenizers, by the role of their codebook.
        deadline: Of the request.
        events: What to tell the caller, in order; None at the end.
        candidates: Finished pictures of which only the best are told; None where all are.
        calls: All that were made and answered so far, each once.
    """

    stages: StageClients
    request: GenerateRequest
    texts: Texts
    provenance: Provenance
    resolutions: Mapping[str, Resolution]
    deadline: Deadline
    events: asyncio.Queue[GenerateResponse | Painted | None]
    candidates: list[Painted] | None = None
    calls: set[Call] = field(default_factory=set)

    async def encode(
        self, pixels: UInt8[np.ndarray, "s s 3"], codebook: str
    ) -> tuple[TokenGrid, Call]:
        """Has the tokenizer of a codebook turn a picture of its size into tokens."""
        begun, request = time.monotonic(), EncodeRequest(codebook=codebook)
        request.pixels.CopyFrom(pack_tensor(pixels))
        retries = Retries("tokenizer", self.deadline)
        while True:
            async with retries as left_s:
                encoded = await self.stages.tokenizer.Encode(request, timeout=left_s)
                return encoded.tokens, timed(encoded.timing, begun)


@dataclass(frozen=True, kw_only=True)
class Painting:
    """One picture of a request.

    Attributes:
        work: What it has in common with the others.
        index: Which one, from 0.
        seed: Its own.
        timeline: Where its time went so far.
        decodes: What was decoded for it so far.
        part: Which of its parts is being painted, from 0.
        parts: How many there are.
        show: Makes previews of what is decoded; by default they are the decoded square.
    """

    work: Work
    index: int
    seed: int
    timeline: Timeline
    decodes: list[DecodeProvenance] = field(default_factory=list)
    part: int = 0
    parts: int = 1
    show: Show | None = None

    def fork(self, part: int, parts: int) -> "Painting":
        """Returns a painting that goes on from here by itself, as one of several."""
        timeline, decodes = self.timeline.fork(), list(self.decodes)
        return replace(self, timeline=timeline, decodes=decodes, part=part, parts=parts)

    def spent(self, *calls: Call) -> None:
        """Adds calls that were made at once to where its time went."""
        self.timeline.spent(calls)
        self.work.calls.update(calls)

    def tell(self, stage: str, step: int, total: int, preview: Preview | None = None) -> None:
        """Tells the caller of a step, if it asked for progress, or for this preview."""
        if self.work.request.progress or preview is not None:
            progress = Progress(
                image=self.index,
                stage=stage,
                step=step,
                total=total,
                part=self.part,
                parts=self.parts,
                preview=preview,
            )
            self.work.events.put_nowait(GenerateResponse(progress=progress))

    async def pixels(
        self, tokens: TokenGrid, *, beside: bool = False
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Has the tokenizer turn tokens into a picture.

        Args:
            tokens: All of them, at either resolution.
            beside: Whether the call runs beside a decode, as that of a preview does.

        Raises:
            RequestError: the tokenizer refused, or stayed unavailable.
        """
        begun, request = time.monotonic(), DecodeRequest(tokens=tokens)
        retries = Retries("tokenizer", self.work.deadline)
        while True:
            async with retries as left_s:
                decoded = await self.work.stages.tokenizer.Decode(request, timeout=left_s)
                break
        call = timed(decoded.timing, begun)
        self.work.calls.add(call)
        if beside:
            self.timeline.beside.append(call)
        else:
            self.timeline.spent([call])
        return unpack_tensor(
            decoded.pixels, field="pixels", data_types=(UINT8,), shape=(None, None, 3)
        )

    async def deliver(
        self, pixels: UInt8[np.ndarray, "h w 3"], *, iteration: int | None = None
    ) -> None:
        """Hands the finished picture to the caller, or to those the best are chosen of.

        Args:
            pixels: The picture.
            iteration: Of a mask-free edit: after which iteration it was taken.
        """
        work = self.work

        def png() -> bytes:  # off the event loop: compressing takes many milliseconds
            file = io.BytesIO()
            info = png_metadata(work.request, self.seed, work.provenance)
            level = 6 if pixels[..., 0].size <= LARGE_PICTURE else 1
            Image.fromarray(pixels).save(file, "PNG", pnginfo=info, compress_level=level)
            return file.getvalue()

        self.tell("tokenizer", 1, 1)
        height, width = pixels.shape[:2]
        with span("png"):
            content = await asyncio.to_thread(png)
        image = GeneratedImage(
            index=self.index,
            seed=self.seed,
            width_px=width,
            height_px=height,
            png=content,
            decodes=self.decodes,
            iteration=iteration,
        )
        painted = Painted(image, pixels, self.timeline)
        if work.candidates is None:
            work.events.put_nowait(painted)
        else:
            work.candidates.append(painted)

    async def decode(
        self,
        message: BaseRequest | SuperresRequest,
        *,
        seed: int | None = None,
        watch: Watch | None = None,
    ) -> TokenGrid:
        """Has base or superres decode; no step is told twice, even after a retry.

        A replica that stops hands the decode back; the next try goes on from there.

        Args:
            message: What only that stage takes.
            seed: Of this decode; the picture's by default.
            watch: Awaited with each step and the state after it.

        Returns:
            All tokens.

        Raises:
            RequestError: the stage refused, or stayed unavailable.
        """
        stage = "base" if isinstance(message, BaseRequest) else "superres"
        self._complete(message, getattr(self.work.request, stage), seed, watch)
        stub, retries = getattr(self.work.stages, stage), Retries(stage, self.work.deadline)
        begun, told = time.monotonic(), 0
        while True:
            async with (
                retries as left_s,
                aclosing(events(stub.Generate(message, timeout=left_s))) as responses,
            ):
                result: DecodeResult | None = None
                async for response in responses:
                    event = response.WhichOneof("event")
                    if event == "result":
                        result = response.result
                    elif event == "preempted":
                        message.resume.CopyFrom(response.preempted)
                        raise unavailable(f"stage {stage} stopped before the end")
                    elif response.progress.step > told:
                        told = response.progress.step
                        preview = await self._preview(message, response.progress)
                        self.tell(stage, told, response.progress.total, preview)
                        if watch is not None:
                            await watch(response.progress)
                if result is None:
                    raise RequestError(
                        grpc.StatusCode.INTERNAL, f"stage {stage} ended without a result"
                    )
                self._decoded(stage, result, begun)
                return result.tokens

    def _decoded(self, stage: str, result: DecodeResult, begun: float) -> None:
        """Notes what a call decoded, and how long it took."""
        self.spent(timed(result.timing, begun))
        digest = hashlib.sha256(result.tokens.ids).hexdigest()
        self.decodes.append(
            DecodeProvenance(stage=stage, steps=result.steps, tokens=f"sha256:{digest}")
        )

    def _complete(
        self,
        message: BaseRequest | SuperresRequest,
        knobs: Sampling,
        seed: int | None,
        watch: Watch | None,
    ) -> None:
        """Sets the fields of a message that both stages take."""
        work = self.work
        if work.texts.prompt is not None:
            message.prompt.CopyFrom(work.texts.prompt)
        if work.texts.negative_prompt is not None:
            message.negative_prompt.CopyFrom(work.texts.negative_prompt)
        message.sampling.CopyFrom(knobs)
        message.sampling.seed = self.seed if seed is None else seed
        message.caller.CopyFrom(work.request.caller)
        if watch is not None or work.request.preview_every:
            message.progress = ProgressDetail.PROGRESS_DETAIL_STATES
        elif work.request.progress:
            message.progress = ProgressDetail.PROGRESS_DETAIL_STEPS

    async def _preview(
        self, message: BaseRequest | SuperresRequest, progress: DecodeProgress
    ) -> Preview | None:
        """Returns a step's preview, if it is one that the caller asked for."""
        every = self.work.request.preview_every
        if not every or (progress.step % every and progress.step != progress.total):
            return None
        edited = isinstance(message, BaseRequest) and message.HasField("mask_free_edit")
        pixels = await self.pixels(progress.state.tokens, beside=True)
        # Off the event loop, as whatever shows it takes its time.
        return await asyncio.to_thread(
            preview_of, progress.state, pixels, all_known=edited, show=self.show
        )


Painter = Callable[[Painting], Coroutine[Any, Any, None]]
