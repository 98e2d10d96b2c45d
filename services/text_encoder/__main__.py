"""The server of the text encoder: `python -m services.text_encoder`."""

from dataclasses import dataclass
from pathlib import Path

from services.runtime.checkpoints.precision import Precision, Weights
from services.runtime.server.process import Service, command_line, run_command_line
from services.runtime.server.settings import BatchedServerSettings
from services.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class Settings(BatchedServerSettings):
    """Settings of the text encoder server.

    Attributes:
        checkpoints: Folder whose subfolder `text_encoder` holds the checkpoint.
        encoder: T5 to serve in place of that checkpoint: a folder in the layout of transformers or
            diffusers, or a hub id such as google/flan-t5-xxl, also as ID@REVISION.
        weights: int8 keeps the matrices of the layers in one byte per number.
        precision: Type of weights and of the factors of matrix products. By default bfloat16 on
            accelerators and on CPUs that multiply it faster, and float32 on others.
        port: Port to listen on; 0 takes a free one.
    """

    checkpoints: Path = Path("checkpoints/demo")
    encoder: str | None = None
    weights: Weights = "full"
    precision: Precision | None = None
    port: int = STAGES["text_encoder"].port


async def build(settings: Settings) -> Service:
    """Loads the encoder and wires engine, device thread, batcher and servicer.

    Raises:
        CheckpointError: there is no encoder, it is not signed as asked for, or it is of a family
            that is not served.
    """
    # Imported here, so that --help loads no JAX.
    from services.nn.precision import precision_to_serve
    from services.runtime.checkpoints.signatures import check_signature
    from services.runtime.scheduling.batching import Batcher
    from services.runtime.server.device_service import device_service
    from services.text_encoder.engine import TextEncoderEngine
    from services.text_encoder.loading import STAGE, load_text_encoder
    from services.text_encoder.servicer import TextEncoderServicer

    def load() -> TextEncoderEngine:
        source = settings.encoder or settings.checkpoints / STAGE
        check_signature(Path(source), settings.checkpoint_key)
        precision = precision_to_serve(settings.precision)
        loaded = load_text_encoder(source, dtype=precision, weights=settings.weights)
        return TextEncoderEngine(loaded, max_batch_size=settings.max_batch_size)

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
            shape_of=engine.batch_shape,
        ),
        servicer_of=TextEncoderServicer,
    )


app = command_line(
    "text_encoder",
    "Serves a text encoder: texts to embeddings.",
    Settings,
    build,
    default=Settings(),
)


if __name__ == "__main__":
    run_command_line(app)
