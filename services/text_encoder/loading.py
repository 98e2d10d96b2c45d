"""Brings a text encoder and its vocabulary into memory from a checkpoint of ours."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from services.nn.parameters import with_parameters
from services.runtime.checkpoints import (
    CheckpointMismatch,
    CheckpointNotFound,
    load_checkpoint,
)
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.model import TextEncoder
from services.text_encoder.vocabulary import FILE_NAME, Vocabulary

STAGE = "text_encoder"


@dataclass(frozen=True, kw_only=True)
class LoadedTextEncoder:
    """An encoder ready to use.

    Attributes:
        encoder: The network with its parameters.
        vocabulary: What makes its ids.
        fingerprint: "t5:" and 16 hex digits: names the embeddings it makes.
        digest: "sha256:" and 64 hex digits of its weights.
    """

    encoder: TextEncoder
    vocabulary: Vocabulary
    fingerprint: str
    digest: str

    @property
    def config(self) -> TextEncoderConfig:
        """Its shape."""
        return self.encoder.config


def load_text_encoder(folder: Path, *, dtype: DTypeLike = jnp.float32) -> LoadedTextEncoder:
    """Reads a text encoder that `python -m training text_encoder` wrote.

    Args:
        folder: Holds model.safetensors, config.json and spiece.model.
        dtype: Of parameters and arithmetic: float32 or bfloat16.

    Raises:
        CheckpointNotFound: the folder or one of its files is missing.
        CheckpointMismatch: the files do not belong together.
    """
    checkpoint = load_checkpoint(folder, stage=STAGE, config_type=TextEncoderConfig)
    config = checkpoint.config
    vocabulary = read_vocabulary(folder, config)
    encoder = with_parameters(
        lambda: TextEncoder(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype),
        checkpoint.parameters,
        dtype=dtype,
    )
    jax.block_until_ready(nnx.state(encoder))
    return LoadedTextEncoder(
        encoder=encoder,
        vocabulary=vocabulary,
        fingerprint=checkpoint.fingerprint["encoder"],
        digest=checkpoint.digest,
    )


def read_vocabulary(folder: Path, config: TextEncoderConfig) -> Vocabulary:
    """Reads spiece.model beside an encoder.

    Raises:
        CheckpointNotFound: it is not there.
        CheckpointMismatch: it is no T5 vocabulary, or has more ids than the embedding has rows.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        raise CheckpointNotFound(
            f"no vocabulary in {folder}: expected the file {FILE_NAME} beside the weights"
        )
    try:
        vocabulary = Vocabulary.from_file(file)
    except ValueError as error:
        raise CheckpointMismatch(f"{file}: {error}") from error
    if vocabulary.size > config.vocabulary_size:
        raise CheckpointMismatch(
            f"{file} has {vocabulary.size} ids, the embedding only {config.vocabulary_size} rows: "
            f"expected the vocabulary that the encoder was trained with"
        )
    return vocabulary
