"""The base stage without its wire: text embeddings in, low-resolution tokens out."""

from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.decoding.loading import load_pool
from services.decoding.pool import Job
from services.decoding.serving import Layout, layout_here
from services.decoding.state import Row
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.precision import served_digest
from services.runtime.checkpoints.serialization import Checkpoint, load_checkpoint

STAGE = "base"
FINGERPRINTS = ("encoder", "codebook")


class BaseEngine:
    """A loaded base transformer. One thread uses it."""

    def __init__(self, checkpoint: Checkpoint[BaseConfig], layout: Layout | None = None) -> None:
        """Puts the checkpoint's parameters on the device.

        Args:
            checkpoint: A base checkpoint.
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
            lambda: BaseTransformer(config, rngs=nnx.Rngs(0), dtype=dtype),
            checkpoint.parameters,
            layout=self.layout,
            divided={"heads": config.heads, "columns of the MLP": config.mlp},
            inputs=(
                jax.ShapeDtypeStruct((1, config.text_length, config.text_hidden), np.float32),
                jax.ShapeDtypeStruct((1, config.text_length), np.bool_),
            ),
            tokens=config.tokens,
            mask_id=config.vocabulary,
        )

    @classmethod
    def load(cls, folder: Path, layout: Layout | None = None) -> "BaseEngine":
        """Reads a checkpoint folder.

        Raises:
            CheckpointError: there is none, or it is of another stage or shape.
            ValueError: the layout's devices are not there, cannot divide it or have no room for it.
        """
        return cls(load_checkpoint(folder, stage=STAGE, config_type=BaseConfig), layout)

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
        text: Float[np.ndarray, "T Dt"],
        row: Row,
        *,
        negative_text: Float[np.ndarray, "T Dt"] | None = None,
    ) -> Job:
        """Makes the decode of one image, for the pool; touches no device.

        Args:
            text: Embedding of the prompt, padding left out.
            row: The decode's start.
            negative_text: Embedding of the negative prompt; None for unconditional guidance.
        """
        opposite = None if negative_text is None else self._inputs(negative_text)
        return Job(inputs=self._inputs(text), opposite=opposite, row=row)

    def _inputs(self, text: Float[np.ndarray, "T Dt"]) -> tuple[np.ndarray, np.ndarray]:
        length = self.config.text_length
        padded = np.zeros((length, self.config.text_hidden), np.float32)
        padded[: len(text)] = text
        return padded, np.arange(length) < len(text)
