"""The server of the public API: `python -m services.orchestrator`."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from services.runtime.server.process import (
    ServerError,
    Service,
    command_line,
    run_command_line,
    run_server,
)
from services.runtime.server.settings import ServerSettings
from services.runtime.wire.errors import RequestError
from services.stages import ORCHESTRATOR_PORT, STAGES

PAUSE_S = 0.25
MOST_HEDGED_PERCENT = 10  # more would be a load of its own
app = command_line("services.orchestrator", "Serves the public API: prompts become pictures.")


@dataclass(frozen=True, kw_only=True)
class Settings(ServerSettings):
    """Settings of the orchestrator.

    Attributes:
        port: Port to listen on; 0 takes a free one.
        max_message_mib: Size of the largest message, in MiB: by default enough for any picture to
            edit and its mask.
        discovery: Who says which replicas a stage has. "dns": its address does, which may be
            several, separated by commas, or "dns:///NAME:PORT", where gRPC takes turns between all
            that DNS names. "kubernetes": its address names a Service, "dns:///NAME:PORT" too, whose
            ready pods are watched; each request goes to the one with the least to do.
        text_encoder: Address of the text encoder.
        tokenizer: Address of the tokenizer.
        base: Address of the base transformer.
        superres: Address of the super-resolution transformer.
        scorer: What chooses the best of several pictures: "clip:FOLDER" of a checkpoint that
            transformers saved. None by default.
        hedged_percent: Of the calls of a stage, how many may be sent to a second replica as well,
            when they take longer than 99 of 100 like them; 0 for none.
    """

    port: int = ORCHESTRATOR_PORT
    max_message_mib: int = 72
    discovery: Literal["dns", "kubernetes"] = "dns"
    text_encoder: str = STAGES["text_encoder"].address
    tokenizer: str = STAGES["tokenizer"].address
    base: str = STAGES["base"].address
    superres: str = STAGES["superres"].address
    scorer: str = ""
    hedged_percent: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hedged_percent <= MOST_HEDGED_PERCENT:
            raise ValueError(
                f"hedged_percent: expected 0 to {MOST_HEDGED_PERCENT}, got {self.hedged_percent}"
            )


DEFAULTS = Settings()


async def build(settings: Settings) -> Service:
    """Opens the channels and wires the servicer.

    The server says SERVING once all stages are there and agree, and goes on saying so: a stage
    that goes away later is answered UNAVAILABLE with its name, request by request, which tells a
    caller more than an orchestrator that is away as well. Stages that contradict each other at
    the start end it.
    """
    import grpc
    from muse.orchestrator.v1.orchestrator_pb2_grpc import (
        add_OrchestratorServiceServicer_to_server,
    )

    from services.orchestrator.calls import Deadline
    from services.orchestrator.compatibility import Agreement
    from services.orchestrator.scoring import load_scorer
    from services.orchestrator.servicer import FULL_NAME, OrchestratorServicer
    from services.orchestrator.stage_clients import StageClients

    try:
        scorer = await asyncio.to_thread(load_scorer, settings.scorer)
    except ValueError as error:
        raise ServerError(str(error)) from error
    try:
        stages = StageClients(
            {name: getattr(settings, name) for name in STAGES},
            max_message_mib=settings.max_message_mib,
            discovery=settings.discovery,
            hedged_share=settings.hedged_percent / 100,
        )
    except ModuleNotFoundError as error:
        raise ServerError(
            f"discovery: kubernetes needs {error.name}: pip install 'muse[discovery]'"
        ) from error
    except ValueError as error:
        raise ServerError(str(error)) from error
    agreement = Agreement(stages)

    async def warm_up() -> None:
        while True:
            try:
                await agreement.found(Deadline(None))
                break
            except RequestError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise ServerError(error.message) from error
                await asyncio.sleep(PAUSE_S)
        agreement.watch()

    async def close() -> None:
        await agreement.close()
        await stages.close()

    return Service(
        name="orchestrator",
        full_name=FULL_NAME,
        register=lambda server: add_OrchestratorServiceServicer_to_server(
            OrchestratorServicer(stages, agreement, scorer), server
        ),
        warm_up=warm_up,
        close=close,
    )


@app.default
def main(settings: Annotated[Settings, Parameter(name="*")] = DEFAULTS) -> None:
    """Serves until SIGTERM."""
    run_server(lambda: build(settings), settings, name="orchestrator")


if __name__ == "__main__":
    run_command_line(app)
