"""Base and superres as servers, over gRPC, with tiny untrained checkpoints."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flax import nnx
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.base.v1 import base_pb2, base_pb2_grpc
from muse.common.v1 import decoding_pb2
from muse.superres.v1 import superres_pb2, superres_pb2_grpc

from services.base import __main__ as base_server
from services.base.model import BaseTransformer
from services.decoding.pool import DecodePool
from services.decoding.slots import Progress
from services.nn.parameters import parameters_of
from services.presets import preset
from services.runtime.checkpoints.serialization import save_checkpoint
from services.runtime.server.process import running_server
from services.runtime.wire.tensors import pack_embedding, pack_grid
from services.superres import __main__ as superres_server
from services.superres.model import SuperresTransformer

TINY = preset("tiny")
ENCODER, LOW, HIGH = "t5:1", "codebook:low", "codebook:high"
TEXT = np.random.default_rng(0).normal(size=(5, TINY.base.text_hidden)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny untrained checkpoints of both."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base = BaseTransformer(TINY.base, rngs=nnx.Rngs(0))
    superres = SuperresTransformer(TINY.superres, rngs=nnx.Rngs(0))
    for stage, config, model, fingerprint in (
        ("base", TINY.base, base, {"encoder": ENCODER, "codebook": LOW}),
        (
            "superres",
            TINY.superres,
            superres,
            {"encoder": ENCODER, "low_codebook": LOW, "codebook": HIGH},
        ),
    ):
        save_checkpoint(
            folder / stage,
            stage=stage,
            config=config,
            parameters={name: np.asarray(value) for name, value in parameters_of(model).items()},
            fingerprint=fingerprint,
            record={"preset": "tiny"},
        )
    return folder


class Stage:
    """A running base or superres, and good requests to it."""

    def __init__(
        self, channel: grpc.aio.Channel, name: str, stop: Callable[[], Awaitable[None]]
    ) -> None:
        self.channel, self.name, self.stop = channel, name, stop
        self.stub: Any = (
            base_pb2_grpc.BaseServiceStub(channel)
            if name == "base"
            else superres_pb2_grpc.SuperresServiceStub(channel)
        )

    def request(self, **changes: Any) -> Message:
        """Returns a good request with some fields set to something else."""
        fields: dict[str, Any] = {"prompt": pack_embedding(TEXT, ENCODER)}
        if self.name == "base":
            fields["sampling"] = decoding_pb2.Sampling(steps=5, seed=2**64 - 1)
            return base_pb2.GenerateRequest(**(fields | changes))
        side = TINY.superres.low_grid
        low = np.arange(side**2).reshape(side, side) % TINY.base.vocabulary
        fields["low_tokens"] = pack_grid(low, LOW)
        fields["sampling"] = decoding_pb2.Sampling(steps=3)
        return superres_pb2.GenerateRequest(**(fields | changes))

    async def events(self, request: Message) -> list[Any]:
        """Reads a stream to its end."""
        return [event async for event in self.stub.Generate(request)]

    async def status(self) -> Any:
        """Asks how it is."""
        messages = base_pb2 if self.name == "base" else superres_pb2
        return (await self.stub.GetStatus(messages.GetStatusRequest())).status

    async def until_busy(self, *, active: int, queued: int = 0) -> None:
        """Waits until so many requests hold a slot and so many wait for one."""
        async with asyncio.timeout(10):
            while True:
                status = await self.status()
                if (status.active, status.queued) == (active, queued):
                    return
                await asyncio.sleep(0.01)

    async def until_serving(self, serving: bool) -> None:
        """Waits until its health says that it serves, or that it does not."""
        says = health_pb2.HealthCheckResponse
        wanted = says.SERVING if serving else says.NOT_SERVING
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        async with asyncio.timeout(10):
            call = stub.Watch(health_pb2.HealthCheckRequest())
            try:
                while (await call.read()).status != wanted:
                    pass
            finally:
                call.cancel()


Serve = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture(scope="module")
def serve(checkpoints: Path) -> Serve:
    """Runs a server of one's own: `async with serve("base", max_batch_size=1) as stage`."""

    @asynccontextmanager
    async def serving(name: str, **changes: Any) -> AsyncIterator[Stage]:
        server: Any = base_server if name == "base" else superres_server
        settings = server.Settings(checkpoints=checkpoints, port=0, **changes)
        service = await server.build(settings)
        async with AsyncExitStack() as server_stack:
            running = await server_stack.enter_async_context(running_server(service, settings))
            async with grpc.aio.insecure_channel(running.address) as channel:
                yield Stage(channel, name, server_stack.aclose)

    return serving


@pytest.fixture(scope="module")
async def base(serve: Serve) -> AsyncIterator[Stage]:
    """A base of four slots."""
    async with serve("base", max_batch_size=4) as stage:
        yield stage


@pytest.fixture(scope="module")
async def superres(serve: Serve) -> AsyncIterator[Stage]:
    """A superres of four slots."""
    async with serve("superres", max_batch_size=4) as stage:
        yield stage


@pytest.fixture
def slow_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes every step so much longer, 0.1 s by default; says how many each dispatch took."""
    advance, taken = DecodePool.advance, []
    longer_s = getattr(request, "param", 0.1)

    def slowly(self: DecodePool, steps: int, *slots: Collection[int]) -> dict[int, Progress]:
        time.sleep(longer_s * steps)
        taken.append(steps)
        return advance(self, steps, *slots)

    monkeypatch.setattr(DecodePool, "advance", slowly)
    return taken
