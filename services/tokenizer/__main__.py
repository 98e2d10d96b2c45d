"""The server of the tokenizers: `python -m services.tokenizer --checkpoints checkpoints/demo`."""

from dataclasses import dataclass
from pathlib import Path

from services.runtime.checkpoints.precision import Precision
from services.runtime.server.process import Service, command_line, run_command_line
from services.runtime.server.settings import BatchedServerSettings
from services.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class Settings(BatchedServerSettings):
    """Settings of the tokenizer server.

    Attributes:
        checkpoints: Folder whose subfolder `tokenizer` holds `low`, and `high` in a system with a
            superres.
        precision: Type of the factors of the decoders' products; encoding is float32. By default
            bfloat16 on accelerators and on CPUs that multiply it faster, float32 on others.
        port: Port to listen on; 0 takes a free one.
    """

    checkpoints: Path
    precision: Precision | None = None
    port: int = STAGES["tokenizer"].port


async def build(settings: Settings) -> Service:
    """Loads the checkpoint and wires engine, device thread, batcher and servicer.

    Raises:
        CheckpointError: a checkpoint is missing, not signed as asked for, or of another stage or
            shape.
    """
    # Imported here, so that --help loads no JAX.
    from services.nn.precision import precision_to_serve
    from services.runtime.checkpoints.signatures import check_signature
    from services.runtime.scheduling.batching import Batcher
    from services.runtime.server.device_service import device_service
    from services.tokenizer.engine import Tokenizers
    from services.tokenizer.families import STAGE
    from services.tokenizer.servicer import TokenizerServicer

    def load() -> Tokenizers:
        check_signature(settings.checkpoints / STAGE, settings.checkpoint_key)
        return Tokenizers(settings.checkpoints / STAGE, precision_to_serve(settings.precision))

    return await device_service(
        STAGE,
        settings,
        load=load,
        batcher_of=lambda engine, device: Batcher(
            engine.run,
            device,
            max_batch_size=settings.max_batch_size,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queued=settings.max_queued,
        ),
        servicer_of=TokenizerServicer,
    )


app = command_line(
    "tokenizer", "Serves the tokenizers: pictures to tokens and back.", Settings, build
)


if __name__ == "__main__":
    run_command_line(app)
