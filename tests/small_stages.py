"""Four small stages that really serve, and an orchestrator over them, all on free ports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from muse.base.v1 import base_pb2, base_pb2_grpc
from muse.common.v1.decoding_pb2 import (
    PROGRESS_DETAIL_STATES,
    DecodeProgress,
    DecodeResult,
    DecodeState,
    Sampling,
)
from muse.common.v1.stage_pb2 import StageStatus, StageTiming
from muse.common.v1.warning_pb2 import RequestWarning
from muse.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from muse.superres.v1 import superres_pb2, superres_pb2_grpc
from muse.text_encoder.v1 import text_encoder_pb2, text_encoder_pb2_grpc
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.orchestrator import __main__ as orchestrator
from services.runtime.server.channels import server_options
from services.runtime.server.interceptors import CallCount, EndlessCalls, server_interceptors
from services.runtime.server.process import running_server
from services.runtime.server.requests import RequestReader
from services.runtime.wire.errors import RequestError, invalid_field, read_error
from services.runtime.wire.tensors import pack_embedding, pack_grid, pack_tensor
from services.stages import NO_STAGE, STAGES
from tests.tcp_line import Line

ENCODER, LOW, HIGH = "t5:one", "codebook:low", "codebook:high"
FINGERPRINTS = {
    "text_encoder": {"encoder": ENCODER},
    "base": {"encoder": ENCODER, "codebook": LOW},
    "superres": {"encoder": ENCODER, "low_codebook": LOW, "codebook": HIGH},
    "tokenizer": {"low_codebook": LOW, "codebook": HIGH},
}
LOW_GRID, HIGH_GRID, HIGH_SIDE_PX = 2, 4, 8
RESOLUTIONS = {LOW: (4, LOW_GRID), HIGH: (HIGH_SIDE_PX, HIGH_GRID)}  # side in pixels, grid
DEFAULTS = {"base": Sampling(steps=5, guidance_scale=2.5), "superres": Sampling(steps=3, top_k=7)}
ADAPTERS = {  # digest of each by its name
    "base": {"fox": "sha256:fox of base", "owl": "sha256:owl of base"},
    "superres": {"owl": "sha256:owl of superres"},
}
LONGEST_TEXT = 32  # words the text encoder takes
# What the call at hand says of its time.
MEASURED: ContextVar[StageTiming | None] = ContextVar("MEASURED", default=None)


class Behaviour:
    """What one stage does, and what it saw.

    Attributes:
        asked: Requests it was handed.
        statuses: How often its status was asked for.
        left_s: Seconds each call had left.
        cancelled: Calls that were cancelled while they ran.
        fingerprints: What it says it serves.
        adapters: Digests of the adapters that it says it has.
        around: Awaited in every call, with its seed (0 where there is none). It may return the
            timing that the call then answers with.
        health: What its health service says, to be set.
        preempts_at: Steps after which a decode that began elsewhere or here is preempted, each
            once.
        queued: Requests that its status says wait.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Any] = []
        self.statuses = 0
        self.left_s: list[float | None] = []
        self.cancelled = 0
        self.fingerprints = dict(FINGERPRINTS[name])
        self.adapters = dict(ADAPTERS.get(name, {}))
        self.around: Callable[[int], Any] | None = None
        self.health = health.aio.HealthServicer()
        self.steps_before_around = 0
        self.preempts_at: list[int] = []
        self.queued = 0

    async def enter(self, request: Any, context: Any, seed: int = 0) -> None:
        if not self.asked or self.asked[-1] is not request:
            self.asked.append(request)
            self.left_s.append(context.time_remaining())
        try:
            if self.around is not None:
                measured = await self.around(seed)
                if isinstance(measured, StageTiming):
                    MEASURED.set(measured)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def status(self) -> StageStatus:
        self.statuses += 1
        digest = {self.name: f"sha256:{self.name}"}
        return StageStatus(
            stage=self.name,
            preset="tiny",
            fingerprints=self.fingerprints,
            checkpoints=digest,
            queued=self.queued,
            adapters=self.adapters,
        )

    def timing(self) -> StageTiming:
        measured = MEASURED.get()
        if measured is None:
            return StageTiming(stage=self.name, queue_s=1e-6, compute_s=2e-6, device_s=2e-6)
        return measured


ZEBRA_WARNING = RequestWarning(
    reason="UNKNOWN_WORDS",
    message='no caption had "zebra"; this checkpoint knows a fox',
    words=["zebra"],
)


class TextEncoder(text_encoder_pb2_grpc.TextEncoderServiceServicer):
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def Encode(self, request: Any, context: Any) -> Any:
        await self.behaviour.enter(request, context)
        for index, text in enumerate(request.texts):
            words = len(text.split())
            if words > LONGEST_TEXT:
                raise invalid_field(
                    f"texts[{index}]", expected=f"at most {LONGEST_TEXT} tokens", got=words
                )
        values = np.zeros((2, 4), np.float32)
        name = self.behaviour.fingerprints["encoder"]
        return text_encoder_pb2.EncodeResponse(
            embeddings=[pack_embedding(values, name) for _ in request.texts],
            timing=self.behaviour.timing(),
            warnings=[ZEBRA_WARNING] if any("zebra" in text for text in request.texts) else [],
        )

    async def GetStatus(self, request: Any, context: Any) -> Any:
        return text_encoder_pb2.GetStatusResponse(status=self.behaviour.status())


class Decoder:
    """Base and superres: takes its steps, and makes a grid that holds the seed where unknown."""

    messages: Any
    grid: int

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        behaviour, sampling = self.behaviour, request.sampling
        for step in range(request.resume.step + 1, sampling.steps + 1):
            if step - 1 in behaviour.preempts_at:
                behaviour.preempts_at.remove(step - 1)
                state = DecodeState(step=step - 1)
                yield self.messages.GenerateResponse(preempted=state)
                return
            if step == behaviour.steps_before_around + 1:
                await behaviour.enter(request, context, sampling.seed)
            if request.progress:
                progress = DecodeProgress(step=step, total=sampling.steps)
                if request.progress == PROGRESS_DETAIL_STATES:
                    progress.state.tokens.CopyFrom(self.tokens(request, step))
                    edited = self.messages is base_pb2 and request.HasField("mask_free_edit")
                    all_known = bytes([1] * self.grid**2)
                    progress.state.known = request.resume.known if edited else all_known
                yield self.messages.GenerateResponse(progress=progress)
        tokens = self.tokens(request, sampling.steps)
        result = DecodeResult(tokens=tokens, timing=behaviour.timing(), steps=sampling.steps)
        yield self.messages.GenerateResponse(result=result)

    def tokens(self, request: Any, step: int) -> Any:
        """The tokens after a step: of a mask-free edit, those it began with and one more a step."""
        ids = np.full((self.grid, self.grid), request.sampling.seed % 256)
        if known := request.resume.known:
            given = np.frombuffer(request.resume.tokens.ids, "<u2").reshape(ids.shape)
            if self.messages is base_pb2 and request.HasField("mask_free_edit"):
                ids = (given + step) % 256
            ids = np.where(np.frombuffer(known, np.uint8).reshape(ids.shape), given, ids)
        return pack_grid(ids, self.behaviour.fingerprints["codebook"])

    async def GetStatus(self, request: Any, context: Any) -> Any:
        return self.messages.GetStatusResponse(
            status=self.behaviour.status(), defaults=DEFAULTS[self.behaviour.name]
        )


class Base(Decoder, base_pb2_grpc.BaseServiceServicer):
    messages = base_pb2
    grid = LOW_GRID


class Superres(Decoder, superres_pb2_grpc.SuperresServiceServicer):
    messages = superres_pb2
    grid = HIGH_GRID


class Tokenizer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """A token is how red its cell is, on the mean."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def Decode(self, request: Any, context: Any) -> Any:
        shade = request.tokens.ids[0]
        await self.behaviour.enter(request, context, shade)
        grid = request.tokens.width
        ids = np.frombuffer(request.tokens.ids, "<u2").reshape(grid, grid)
        side, _ = RESOLUTIONS[request.tokens.codebook]
        cell = np.ones((side // grid,) * 2)
        pixels = np.repeat(np.kron(ids, cell)[..., None], 3, axis=2).astype(np.uint8)
        return tokenizer_pb2.DecodeResponse(
            pixels=pack_tensor(pixels), timing=self.behaviour.timing()
        )

    async def Encode(self, request: Any, context: Any) -> Any:
        await self.behaviour.enter(request, context)
        side, grid = RESOLUTIONS[request.codebook]
        pixels = np.frombuffer(request.pixels.data, np.uint8).reshape(side, side, 3)
        cells = pixels[..., 0].reshape(grid, side // grid, grid, side // grid)
        ids = cells.mean(axis=(1, 3)).astype(int)
        return tokenizer_pb2.EncodeResponse(
            tokens=pack_grid(ids, request.codebook), timing=self.behaviour.timing()
        )

    async def GetStatus(self, request: Any, context: Any) -> Any:
        return tokenizer_pb2.GetStatusResponse(
            status=self.behaviour.status(),
            resolutions={
                role: tokenizer_pb2.Resolution(side_px=side, grid=grid)
                for role, name in FINGERPRINTS["tokenizer"].items()
                for side, grid in [RESOLUTIONS[name]]
            },
        )


REGISTER: dict[str, Any] = {
    "text_encoder": (TextEncoder, text_encoder_pb2_grpc.add_TextEncoderServiceServicer_to_server),
    "base": (Base, base_pb2_grpc.add_BaseServiceServicer_to_server),
    "superres": (Superres, superres_pb2_grpc.add_SuperresServiceServicer_to_server),
    "tokenizer": (Tokenizer, tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server),
}


@dataclass
class House:
    """An orchestrator over four stages.

    Attributes:
        stub: Calls it.
        stages: What each stage does and saw.
        lines: The line to each stage.
        health: Of the orchestrator, to be asked.
        address: Of the orchestrator.
        metadata: What comes with each request.
    """

    stub: Any
    stages: dict[str, Behaviour]
    lines: dict[str, Line]
    health: Any
    address: str
    metadata: tuple[tuple[str, str], ...] = ()

    def request(self, **changes: Any) -> orchestrator_pb2.GenerateRequest:
        """A good request with some fields set to something else."""
        return orchestrator_pb2.GenerateRequest(**{"prompt": "a fox", "seed": 7, **changes})

    async def events(self, timeout_s: float | None = 20, **changes: Any) -> list[Any]:
        """Every event of a request."""
        request = self.request(**changes)
        call = self.stub.Generate(request, timeout=timeout_s, metadata=self.metadata)
        return [event async for event in call]

    async def refusal(self, timeout_s: float | None = 20, **changes: Any) -> RequestError:
        """What the orchestrator says to a request that must fail."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.events(timeout_s, **changes)
        return read_error(caught.value)

    def calls(self) -> int:
        """How many calls, other than for its status, reached any stage."""
        return sum(len(stage.asked) for stage in self.stages.values())

    async def works(self) -> bool:
        """Whether a good request is answered to its end."""
        return (await self.events())[-1].WhichOneof("event") == "done"


@asynccontextmanager
async def a_stage(behaviour: Behaviour) -> AsyncIterator[int]:
    servicer, register = REGISTER[behaviour.name]
    server = grpc.aio.server(
        interceptors=server_interceptors(CallCount(), EndlessCalls(), RequestReader()),
        options=server_options(),
    )
    register(servicer(behaviour), server)
    health_pb2_grpc.add_HealthServicer_to_server(behaviour.health, server)
    await behaviour.health.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@dataclass
class StageReplica:
    """One of several servers of a stage.

    Attributes:
        does: What it does and saw.
        line: The line to it.
    """

    does: Behaviour
    line: Line

    @property
    def address(self) -> str:
        """Where it is called."""
        return f"127.0.0.1:{self.line.port}"


@pytest.fixture
async def started() -> AsyncIterator[Callable[[str], Any]]:
    """Starts one more replica of a stage, each time it is awaited with its name."""
    async with AsyncExitStack() as stack:

        async def start(name: str) -> StageReplica:
            does = Behaviour(name)
            line = Line(await stack.enter_async_context(a_stage(does)))
            await line.restore()
            stack.push_async_callback(line.cut)
            return StageReplica(does, line)

        yield start


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Everything up and in compatibility."""
    async with open_house() as opened:
        yield opened


@asynccontextmanager
async def open_house(**changes: Any) -> AsyncIterator[House]:
    """Everything up and in compatibility, with some settings of the orchestrator set.

    A stage whose setting is NO_STAGE is not there.
    """
    async with AsyncExitStack() as stack:
        stages = {name: Behaviour(name) for name in STAGES if changes.get(name) != NO_STAGE}
        lines = {}
        for name, behaviour in stages.items():
            lines[name] = Line(await stack.enter_async_context(a_stage(behaviour)))
            await lines[name].restore()
            stack.push_async_callback(lines[name].cut)
        addresses: Any = {name: f"127.0.0.1:{line.port}" for name, line in lines.items()}
        settings = orchestrator.Settings(**{"port": 0, "grace_s": 0.2, **addresses, **changes})
        running = await stack.enter_async_context(
            running_server(await orchestrator.build(settings), settings)
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(running.address))
        yield House(
            stub=orchestrator_pb2_grpc.OrchestratorServiceStub(channel),
            stages=stages,
            lines=lines,
            health=health_pb2_grpc.HealthStub(channel),
            address=running.address,
        )
