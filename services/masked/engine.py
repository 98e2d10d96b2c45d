"""Engine of a masked stage: text embeddings in, tokens out, without the wire."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Generic

import numpy as np
from jaxtyping import Float

from services.decoding.loading import load_pool
from services.decoding.pool import DecodeRequest
from services.decoding.serving import ServingConfig, default_serving_config
from services.decoding.state import Row, Sampling, fresh_row
from services.masked.adapters import load_adapters
from services.masked.spec import Config, MaskedSpec
from services.nn.precision import build_in
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.families import load_family
from services.runtime.checkpoints.golden import Arrays, check_golden
from services.runtime.checkpoints.precision import served_digest
from services.runtime.checkpoints.serialization import Checkpoint
from services.stages import STAGES


class MaskedEngine(Generic[Config]):
    """A loaded masked transformer and its slots. One thread uses the pool.

    Attributes:
        spec: The stage.
        checkpoint: Its checkpoint.
        config: The checkpoint's configuration.
        serving: Devices, slots and precision.
        adapters: Digest of each of its adapters by name.
        pool: The transformer and its slots on the device.
    """

    def __init__(
        self,
        spec: MaskedSpec[Config],
        checkpoint: Checkpoint[Config],
        serving: ServingConfig | None = None,
        adapters: Mapping[str, Path] | None = None,
    ) -> None:
        """Puts the parameters of the stage's checkpoint, and its adapters, on the device.

        Args:
            spec: The stage.
            checkpoint: Its checkpoint.
            serving: Devices, slots and precision; None takes the default device.
            adapters: Folder of each adapter by its name.

        Raises:
            CheckpointNotFound: a folder holds no adapter.
            CheckpointMismatch: the parameters do not fit the configuration, the checkpoint does
                not name the encoder and codebooks that it was trained with, or an adapter is of
                another checkpoint or damaged.
            ValueError: the devices of `serving` are missing, cannot share the transformer evenly,
                or have too little memory.
        """
        needed = STAGES[spec.name].needs
        if missing := [name for name in needed if name not in checkpoint.fingerprint]:
            raise CheckpointMismatch(
                f"{checkpoint.folder}/config.json names no fingerprint of {missing}: "
                f"export the stage again with `python -m training {spec.name}`"
            )
        self.spec, self.checkpoint, self.config = spec, checkpoint, checkpoint.config
        self.serving = serving or default_serving_config()
        loaded = load_adapters(adapters or {}, spec.name, checkpoint)
        self.adapters = {name: adapter.digest for name, adapter in loaded.items()}
        config, dtype = self.config, self.serving.dtype
        self.pool = load_pool(
            lambda: build_in(dtype, partial(spec.build, config)),
            checkpoint.parameters,
            serving=self.serving,
            sharded=spec.sharded(config),
            inputs=spec.input_shapes(config),
            tokens=config.tokens,
            mask_id=config.vocabulary,
            adapters=loaded,
        )

    @classmethod
    def load(
        cls,
        spec: MaskedSpec[Config],
        folder: Path,
        serving: ServingConfig | None = None,
        adapters: Mapping[str, Path] | None = None,
    ) -> "MaskedEngine[Config]":
        """Reads a checkpoint folder; arguments and errors as of the constructor.

        Raises:
            CheckpointError: there is no checkpoint, or it is of another stage, family or shape.
        """
        checkpoint = load_family(folder, stage=spec.name, config_types=spec.config_types)
        return cls(spec, checkpoint, serving, adapters)

    @property
    def digest(self) -> str:
        """Digest of the checkpoint, with what changes its pictures (`served_digest`)."""
        serving = self.serving
        return served_digest(self.checkpoint.digest, serving.precision, serving.rows_at_once)

    def warm_up(self) -> None:
        """Compiles every program; nothing compiles afterwards.

        Raises:
            CheckpointMismatch: the checkpoint's golden example is damaged or of another stage.
            GoldenMismatch: this machine answers it otherwise.
        """
        self.pool.warm_up()
        check_golden(self.checkpoint.folder, self.answer_golden)

    def answer_golden(self, inputs: Arrays) -> Arrays:
        """Returns the likeliest tokens of an image of which none is known.

        Args:
            inputs: The embedding of a prompt as "text", and what else the stage is conditioned on.
        """
        condition = [value for name, value in sorted(inputs.items()) if name != "text"]
        row = fresh_row(
            self.config.tokens,
            Sampling(steps=1, guidance_scale=0.0, temperature=0.0, choice_temperature=0.0),
        )
        self.pool.admit(0, self.decode_request(row, inputs["text"], *condition))
        return {"tokens": self.pool.advance(1, [0])[0].tokens}

    def decode_request(
        self,
        row: Row,
        text: Float[np.ndarray, "T Dt"],
        *condition: np.ndarray,
        negative_text: Float[np.ndarray, "T Dt"] | None = None,
        adapters: Mapping[str, float] | None = None,
    ) -> DecodeRequest:
        """Makes the pool's request for one image; touches no device.

        Args:
            row: Start of the decode.
            text: Embedding of the prompt, without padding.
            condition: The inputs of `spec.condition_shapes`, without a batch axis: the
                low-resolution tokens of superres.
            negative_text: Embedding of the negative prompt; None guides away from no text.
            adapters: Weight of each adapter to apply, by its name.
        """
        negative = None if negative_text is None else (*condition, *self._padded(negative_text))
        inputs = (*condition, *self._padded(text))
        return DecodeRequest(
            inputs=inputs, negative_inputs=negative, row=row, adapters=adapters or {}
        )

    def _padded(self, text: Float[np.ndarray, "T Dt"]) -> tuple[np.ndarray, np.ndarray]:
        """Returns an embedding padded to the model's text length, and its mask."""
        length = self.config.text_length
        padded = np.zeros((length, self.config.text_hidden), np.float32)
        padded[: len(text)] = text
        return padded, np.arange(length) < len(text)
