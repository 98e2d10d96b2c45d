"""The server of the tokenizers: `python -m services.tokenizer --checkpoints checkpoints/demo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from services.runtime.server.process import Service, command_line, run_command_line, run_server
from services.runtime.server.settings import BatchedServerSettings
from services.stages import STAGES

app = command_line("services.tokenizer", "Serves the tokenizers: pictures to tokens and back.")


@dataclass(frozen=True, kw_only=True)
class Settings(BatchedServerSettings):
    """Settings of the tokenizer server.

    Attributes:
        checkpoints: Folder whose subfolder `tokenizer` holds `low` and `high`.
        port: Port to listen on; 0 takes a free one.
    """

    checkpoints: Path
    port: int = STAGES["tokenizer"].port


async def build(settings: Settings) -> Service:
    """Loads the checkpoint and wires engine, device thread, batcher and servicer.

    Raises:
        CheckpointError: a checkpoint is missing, or of another stage or shape.
    """
    # Imported here, so that --help loads no JAX.
    from services.runtime.scheduling.batching import Batcher
    from services.runtime.scheduling.device_thread import DeviceThread
    from services.runtime.server.jax_setup import prepare_jax
    from services.tokenizer.engine import STAGE, Tokenizers
    from services.tokenizer.servicer import TokenizerServicer

    prepare_jax(settings.compilation_cache)
    device = DeviceThread()
    engine, _ = await device.run(Tokenizers.load, settings.checkpoints / STAGE)
    batcher = Batcher(
        engine.run,
        device,
        max_batch_size=settings.max_batch_size,
        max_wait_s=settings.max_wait_ms / 1000,
        max_queued=settings.max_queued,
    )
    servicer = TokenizerServicer(engine, batcher)

    async def warm_up() -> None:
        await device.run(engine.warm_up)

    async def close() -> None:
        await batcher.drain()
        device.close()

    return Service(
        name=STAGE,
        servicer=servicer,
        warm_up=warm_up,
        close=close,
        load=batcher.load,
    )


@app.default
def main(settings: Annotated[Settings, Parameter(name="*")]) -> None:
    """Serves until SIGTERM."""
    run_server(lambda: build(settings), settings, name="tokenizer")


if __name__ == "__main__":
    run_command_line(app)
