"""Engine of the tokenizers: images to token grids and back, without the wire."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, UInt8

from services.nn.parameters import with_parameters
from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.golden import Arrays, check_golden
from services.runtime.checkpoints.integrity import check_fingerprint
from services.runtime.checkpoints.precision import Precision, served_digest
from services.runtime.checkpoints.serialization import Checkpoint, codebook_fingerprint
from services.tokenizer.families import STAGE, AnyTokenizerConfig, load_tokenizer
from services.tokenizer.model import CODEBOOK
from services.tokenizer.programs import served_tokenizer, tokenizer_programs

ROLES = {"low": "low_codebook", "high": "codebook"}  # checkpoint folder to fingerprint role


Job: TypeAlias = Callable[[], Array]
"""Starts to encode or decode an image, and does not wait for the device."""


class TokenizerEngine:
    """One loaded tokenizer. One thread uses it."""

    def __init__(
        self, checkpoint: Checkpoint[AnyTokenizerConfig], precision: Precision = "float32"
    ) -> None:
        """Puts the checkpoint's parameters on the device.

        Args:
            checkpoint: Of a tokenizer.
            precision: As of `served_tokenizer`.

        Raises:
            CheckpointMismatch: the checkpoint names no codebook, or its parameters do not fit its
                configuration.
            CheckpointDamaged: its codebook has another fingerprint than it names.
        """
        if "codebook" not in checkpoint.fingerprint:
            raise CheckpointMismatch(
                f"{checkpoint.folder}/config.json names no fingerprint of its codebook: "
                f"export it again with `python -m training {STAGE}`"
            )
        self.checkpoint, self.config = checkpoint, checkpoint.config
        self.digest = served_digest(checkpoint.digest, precision)
        self.codebook = checkpoint.fingerprint["codebook"]
        config = checkpoint.config
        model = with_parameters(lambda: served_tokenizer(config, precision), checkpoint.parameters)
        check_fingerprint(
            checkpoint.folder,
            "codebook",
            expected=self.codebook,
            got=codebook_fingerprint(checkpoint.parameters[CODEBOOK]),
        )
        graph, self._state = nnx.split(model)
        programs = tokenizer_programs(graph, self._state, config)
        self._encode, self._decode = programs.encode.jit(), programs.decode.jit()

    def warm_up(self) -> None:
        """Compiles both programs; nothing compiles afterwards.

        Raises:
            CheckpointMismatch: the checkpoint's golden example is damaged or of another stage.
            GoldenMismatch: this machine answers it otherwise.
        """
        side, grid = self.config.image_size, self.config.grid
        self.start_encode(np.zeros((side, side, 3), np.uint8)).block_until_ready()
        self.start_decode(np.zeros((grid, grid), np.int32)).block_until_ready()
        check_golden(self.checkpoint.folder, self.answer_golden)

    def answer_golden(self, inputs: Arrays) -> Arrays:
        """Returns the mean colour of each token's square, and the tokens of the decoded image.

        Args:
            inputs: A grid of tokens as "tokens".
        """
        grid, factor = self.config.grid, self.config.factor
        pixels = np.asarray(self.start_decode(inputs["tokens"]))
        squares = pixels.reshape(grid, factor, grid, factor, 3).mean(axis=(1, 3), dtype=np.float32)
        return {"colours": squares, "tokens": np.asarray(self.start_encode(pixels))}

    def start_encode(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Int[Array, "h w"]:
        """Starts to encode an image of the tokenizer's size; does not wait."""
        return self._encode(self._state, pixels)

    def start_decode(self, ids: Int[np.ndarray, "h w"]) -> UInt8[Array, "h w 3"]:
        """Starts to decode a grid of the tokenizer's size; does not wait."""
        return self._decode(self._state, ids)


class Tokenizers:
    """The tokenizers of base and of superres, by the fingerprint of their codebook.

    Attributes:
        engines: Tokenizers by the name of their checkpoint folder: "low", and "high" in a system
            with a superres; the last one is that of the picture.
        by_codebook: Tokenizers by the fingerprint of their codebook.
        precision: Of the factors of the decoders' products.
    """

    def __init__(self, folder: Path, precision: Precision = "float32") -> None:
        """Loads `low`, and `high` if it is there, from a folder.

        Args:
            folder: Folder of both; a system without a superres has no `high`.
            precision: As of `TokenizerEngine`.

        Raises:
            CheckpointError: a checkpoint is missing, or of another stage, family or shape, or both
                have the same codebook.
        """
        self.precision = precision
        names = [name for name in ROLES if name != "high" or (folder / name).exists()]
        self.engines = {
            name: TokenizerEngine(load_tokenizer(folder / name), precision) for name in names
        }
        self.by_codebook = {engine.codebook: engine for engine in self.engines.values()}
        if len(self.by_codebook) < len(self.engines):
            raise CheckpointMismatch(
                f"{' and '.join(ROLES)} in {folder} have the same codebook, "
                f"{min(self.by_codebook)}, by which requests name them: expected two different ones"
            )

    def warm_up(self) -> None:
        """Compiles every program."""
        for engine in self.engines.values():
            engine.warm_up()

    def run(self, jobs: list[Job]) -> list[np.ndarray]:
        """Encodes and decodes images; returns one result per job, in order.

        Each image runs alone in the compiled program of its size, so that its bytes do not depend
        on the other jobs. All jobs are started before the first result is awaited.
        """
        started = [job() for job in jobs]
        return [np.asarray(array) for array in started]

    @property
    def device(self) -> str:
        """Platform and number of the devices, such as "cpu x1"."""
        return f"{jax.devices()[0].platform} x1"
