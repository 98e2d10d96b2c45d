"""The four stages as the orchestrator calls them: channels, deadlines, retries, timing."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from muse.base.v1 import base_pb2, base_pb2_grpc
from muse.common.v1.stage_pb2 import StageStatus, StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import StageReport
from muse.superres.v1 import superres_pb2, superres_pb2_grpc
from muse.text_encoder.v1 import text_encoder_pb2, text_encoder_pb2_grpc
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.errors import failed_precondition, read_error, unavailable
from services.runtime.server import channel_options
from services.runtime.telemetry import client_interceptors

Answer = TypeVar("Answer")
STAGES = ("text_encoder", "base", "superres", "tokenizer")
TRIES = 3
FIRST_PAUSE_S = 0.1
STATUS_TIMEOUT_S = 5.0


class Deadline:
    """When a request's time is over."""

    def __init__(self, remaining_s: float | None) -> None:
        """Starts the clock; None means no limit."""
        self._ends = None if remaining_s is None else time.monotonic() + remaining_s

    def left_s(self) -> float | None:
        """Returns the seconds left, at least 0, or None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())


async def retried(
    stage: str, call: Callable[[float | None], Awaitable[Answer]], deadline: Deadline
) -> Answer:
    """Calls a stage; tries again only if it was UNAVAILABLE and time is left.

    Args:
        stage: Its name, for the refusal.
        call: Makes the call, within that many seconds.
        deadline: Of the whole request.

    Raises:
        RequestError: the stage refused, or stayed unavailable.
    """
    for attempt in range(TRIES):
        try:
            return await call(deadline.left_s())
        except grpc.aio.AioRpcError as error:
            left_s, pause_s = deadline.left_s(), FIRST_PAUSE_S * 2**attempt
            last = attempt == TRIES - 1 or (left_s is not None and left_s <= pause_s)
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise read_error(error) from error
            if last:
                raise unavailable(f"stage {stage} cannot be reached: {error.details()}") from error
            await asyncio.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def timed(timing: StageTiming, begun: float) -> StageTiming:
    """Returns the timing with what the caller waited beyond queue and compute."""
    full = StageTiming()
    full.CopyFrom(timing)
    full.transfer_s = max(0.0, time.monotonic() - begun - timing.queue_s - timing.compute_s)
    return full


class Stages:
    """Channels to the four stages."""

    def __init__(self, addresses: Mapping[str, str], *, max_message_mib: int = 32) -> None:
        """Opens the channels; connects at the first call.

        Args:
            addresses: "host:port" of every stage by name.
            max_message_mib: Size of the largest message, in MiB.
        """
        self.addresses = dict(addresses)
        self._channels = {
            name: grpc.aio.insecure_channel(
                addresses[name],
                options=channel_options(max_message_mib),
                interceptors=client_interceptors(),
            )
            for name in STAGES
        }
        self.text_encoder: Any = text_encoder_pb2_grpc.TextEncoderServiceStub(
            self._channels["text_encoder"]
        )
        self.base: Any = base_pb2_grpc.BaseServiceStub(self._channels["base"])
        self.superres: Any = superres_pb2_grpc.SuperresServiceStub(self._channels["superres"])
        self.tokenizer: Any = tokenizer_pb2_grpc.TokenizerServiceStub(self._channels["tokenizer"])
        self._status: dict[str, tuple[Any, Any]] = {
            "text_encoder": (self.text_encoder, text_encoder_pb2.GetStatusRequest),
            "base": (self.base, base_pb2.GetStatusRequest),
            "superres": (self.superres, superres_pb2.GetStatusRequest),
            "tokenizer": (self.tokenizer, tokenizer_pb2.GetStatusRequest),
        }

    async def report(self, name: str) -> StageReport:
        """Asks one stage how it is; a stage that is away is a report, not an error."""
        report = StageReport(stage=name, address=self.addresses[name])
        stub, request = self._status[name]
        asked: Any = health_pb2_grpc.HealthStub(self._channels[name])
        try:
            health = await asked.Check(health_pb2.HealthCheckRequest(), timeout=STATUS_TIMEOUT_S)
            report.serving = health.status == health_pb2.HealthCheckResponse.SERVING
            answer = await stub.GetStatus(request(), timeout=STATUS_TIMEOUT_S)
            report.status.CopyFrom(answer.status)
        except grpc.aio.AioRpcError as error:
            report.problem = f"{error.code().name}: {error.details()}"
        return report

    async def reports(self) -> list[StageReport]:
        """Asks every stage how it is, in the order of the pipeline."""
        return list(await asyncio.gather(*map(self.report, STAGES)))

    async def agreed(self) -> dict[str, StageStatus]:
        """Returns every stage's status once all are there and fit together.

        Raises:
            RequestError: UNAVAILABLE: a stage is away. FAILED_PRECONDITION: two stages serve
                checkpoints that were not trained together.
        """
        reports = await self.reports()
        for report in reports:
            if not report.serving or report.problem:
                raise unavailable(
                    f"{report.stage} at {report.address} is not serving: "
                    f"{report.problem or 'its health says NOT_SERVING'}"
                )
        found = {report.stage: report.status for report in reports}
        check_fingerprints(found)
        return found

    async def close(self) -> None:
        """Closes the channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


def check_fingerprints(found: Mapping[str, StageStatus]) -> None:
    """Checks that the stages' checkpoints were trained together.

    Raises:
        RequestError: FAILED_PRECONDITION, with both names.
    """
    encoder = found["text_encoder"].fingerprints["encoder"]
    codebooks = set(found["tokenizer"].fingerprints.values())
    low = found["base"].fingerprints["codebook"]
    pairs = [
        ("base", "encoder", encoder),
        ("superres", "encoder", encoder),
        ("superres", "low_codebook", low),
    ]
    for stage, role, made in pairs:
        needs = found[stage].fingerprints[role]
        if needs != made:
            raise failed_precondition(
                f"{stage} needs {role} {needs}, but {made} is served; "
                "serve checkpoints that were trained together"
            )
    high = found["superres"].fingerprints["codebook"]
    if high not in codebooks:
        raise failed_precondition(
            f"superres makes tokens of {high}, the tokenizer serves {', '.join(sorted(codebooks))}"
        )


async def events(call: Any) -> AsyncGenerator[Any, None]:
    """Reads a decode's stream and cancels it when the reader stops.

    Raises:
        RequestError: the stage refused.
    """
    try:
        async for response in call:
            yield response
    finally:
        call.cancel()
