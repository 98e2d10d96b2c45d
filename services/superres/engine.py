"""The superres stage without its wire: low-resolution tokens and text in, finer tokens out."""

from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from services.decoding.loading import load_pool
from services.decoding.pool import Job
from services.decoding.serving import Layout, layout_here
from services.decoding.state import Row
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.precision import served_digest
from services.runtime.checkpoints.serialization import Checkpoint, load_checkpoint
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer

STAGE = "superres"
FINGERPRINTS = ("encoder", "low_codebook", "codebook")


class SuperresEngine:
    """A loaded super-resolution transformer. One thread uses it."""

    def __init__(
        self, checkpoint: Checkpoint[SuperresConfig], layout: Layout | None = None
    ) -> None:
        """Puts the checkpoint's parameters on the device.

        Args:
            checkpoint: A superres checkpoint.
            layout: Devices, slots and precision; by default what suits the device.

        Raises:
            CheckpointMismatch: the parameters are not those of the configuration, or it does not
                name the encoder and codebooks it was trained with.
            ValueError: the layout's devices are not there, cannot divide it or have no room for it.
        """
        if missing := [name for name in FINGERPRINTS if name not in checkpoint.fingerprint]:
            raise CheckpointMismatch(
                f"{checkpoint.folder}/config.json names no fingerprint of {missing}: "
                f"export the stage again with `python -m training {STAGE}`"
            )
        self.checkpoint, self.config = checkpoint, checkpoint.config
        self.layout = layout or layout_here()
        config, dtype = self.config, self.layout.dtype
        self.pool = load_pool(
            lambda: SuperresTransformer(config, rngs=nnx.Rngs(0), dtype=dtype),
            checkpoint.parameters,
            layout=self.layout,
            divided={
                "pairs of near and far heads": config.heads // 2,
                "columns of the MLP": config.mlp,
            },
            inputs=(
                jax.ShapeDtypeStruct((1, config.low_tokens), np.int32),
                jax.ShapeDtypeStruct((1, config.text_length, config.text_hidden), np.float32),
                jax.ShapeDtypeStruct((1, config.text_length), np.bool_),
            ),
            tokens=config.tokens,
            mask_id=config.vocabulary,
        )

    @classmethod
    def load(cls, folder: Path, layout: Layout | None = None) -> "SuperresEngine":
        """Reads a checkpoint folder.

        Raises:
            CheckpointError: there is none, or it is of another stage or shape.
            ValueError: the layout's devices are not there, cannot divide it or have no room for it.
        """
        return cls(load_checkpoint(folder, stage=STAGE, config_type=SuperresConfig), layout)

    @property
    def device(self) -> str:
        """What it computes on, such as "cpu x1"."""
        return self.layout.device

    @property
    def digest(self) -> str:
        """Of the checkpoint, and its precision unless it is the checkpoint's own."""
        return served_digest(self.checkpoint.digest, self.layout.precision)

    def warm_up(self) -> None:
        """Compiles everything; nothing compiles afterwards."""
        self.pool.warm_up()

    def job(
        self,
        low_tokens: Int[np.ndarray, " Nl"],
        text: Float[np.ndarray, "T Dt"],
        row: Row,
        *,
        negative_text: Float[np.ndarray, "T Dt"] | None = None,
    ) -> Job:
        """Makes the decode of one image, for the pool; touches no device.

        Args:
            low_tokens: The low-resolution picture, row by row.
            text: Embedding of the prompt, padding left out.
            row: The decode's start.
            negative_text: Embedding of the negative prompt; None for unconditional guidance.
        """
        opposite = None if negative_text is None else self._inputs(low_tokens, negative_text)
        return Job(inputs=self._inputs(low_tokens, text), opposite=opposite, row=row)

    def _inputs(
        self, low_tokens: Int[np.ndarray, " Nl"], text: Float[np.ndarray, "T Dt"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        length = self.config.text_length
        padded = np.zeros((length, self.config.text_hidden), np.float32)
        padded[: len(text)] = text
        return low_tokens.astype(np.int32), padded, np.arange(length) < len(text)
