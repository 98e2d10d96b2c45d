"""Loading of a text encoder and its vocabulary, from our checkpoints or Hugging Face's."""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from services.nn.precision import build_in
from services.nn.quantization import with_weights
from services.runtime.checkpoints.errors import CheckpointMismatch, CheckpointNotFound
from services.runtime.checkpoints.families import load_family
from services.runtime.checkpoints.integrity import check_fingerprint
from services.runtime.checkpoints.precision import (
    Weights,
    check_weights,
    precision_name,
    served_digest,
)
from services.runtime.checkpoints.serialization import Checkpoint
from services.text_encoder.clip_config import ClipTextConfig
from services.text_encoder.clip_vocabulary import FILE_NAME as CLIP_FILE_NAME
from services.text_encoder.clip_vocabulary import ClipVocabulary
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.families import (
    CONFIG_TYPES,
    AnyTextEncoder,
    AnyTextEncoderConfig,
    AnyVocabulary,
    build_text_encoder,
    encoder_fingerprint,
)
from services.text_encoder.folders import find_folder
from services.text_encoder.huggingface import is_huggingface, read_huggingface
from services.text_encoder.known_words import KNOWN_WORDS_FILE, KnownWords
from services.text_encoder.vocabulary import FILE_NAME, Vocabulary
from services.text_encoder.vocabulary_files import TOKENIZER_FILE, vocabulary_model

STAGE = "text_encoder"


@dataclass(frozen=True, kw_only=True)
class LoadedTextEncoder:
    """A text encoder with its parameters and vocabulary.

    Attributes:
        encoder: The network with its parameters.
        vocabulary: Converts texts to ids.
        folder: Where it was read from.
        fingerprint: "t5:" or "clip:" and 16 hex digits; identifies the embeddings that the encoder
            makes.
        digest: Digest of the weights, with the precision if that is not the checkpoint's own.
        precision: Precision of weights and arithmetic, such as "float32".
        preset: Name of the preset that the encoder belongs to, or "custom".
        known_words: Words of its training captions; None if the checkpoint does not list them.
    """

    encoder: AnyTextEncoder
    vocabulary: AnyVocabulary
    folder: Path
    fingerprint: str
    digest: str
    precision: str
    preset: str = "custom"
    known_words: KnownWords | None = None

    @property
    def config(self) -> AnyTextEncoderConfig:
        """Configuration of the encoder."""
        return self.encoder.config

    @property
    def pieces(self) -> Vocabulary:
        """The vocabulary of a T5, which has ids of texts without padding.

        Raises:
            CheckpointMismatch: the encoder is of another family.
        """
        if not isinstance(self.vocabulary, Vocabulary):
            raise CheckpointMismatch(
                f"{self.folder} holds a text encoder of the family 'clip': expected a T5; on a "
                "CLIP only a transformer learns that goes on from a checkpoint (--from)"
            )
        return self.vocabulary


def load_text_encoder(
    source: str | Path, *, dtype: DTypeLike = jnp.float32, weights: Weights = "full"
) -> LoadedTextEncoder:
    """Reads a text encoder.

    Args:
        source: A folder that `python -m training text_encoder` or an import wrote, a folder of a T5
            in Hugging Face's or diffusers' layout, or a hub id such as "google/flan-t5-xxl@main".
        dtype: Type of parameters and of the factors of products: float32 or bfloat16.
        weights: Format of the matrices of the layers.

    Raises:
        CheckpointNotFound: the folder or one of its files is missing.
        CheckpointMismatch: the files do not fit together.
        CheckpointDamaged: they are not those that were written, or weights are no numbers.
        ValueError: `dtype` or `weights` is another.
    """
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise ValueError(
            f"dtype must be float32 or bfloat16, got {jnp.dtype(dtype).name}: "
            f"T5 exceeds the range of float16"
        )
    check_weights(weights)
    precision = precision_name(jnp.dtype(dtype).name, weights)
    folder = find_folder(source)
    computed = is_huggingface(folder)  # its fingerprint, which no file names
    checkpoint: Checkpoint[TextEncoderConfig] | Checkpoint[AnyTextEncoderConfig]
    if computed:
        checkpoint = read_huggingface(folder)
    else:
        checkpoint = load_family(folder, stage=STAGE, config_types=CONFIG_TYPES)
        if "encoder" not in checkpoint.fingerprint:
            raise CheckpointMismatch(
                f"{folder}/config.json names no fingerprint of its encoder: "
                f"export it again with `python -m training {STAGE}`"
            )
    config = checkpoint.config
    vocabulary, words = read_vocabulary(folder, config), folder / KNOWN_WORDS_FILE
    if not computed:
        got = encoder_fingerprint(config, checkpoint.parameters, vocabulary.model)
        check_fingerprint(folder, "encoder", expected=checkpoint.fingerprint["encoder"], got=got)

    def build(between_products: DTypeLike) -> AnyTextEncoder:
        return build_text_encoder(config, dtype=between_products, param_dtype=dtype)

    return LoadedTextEncoder(
        encoder=with_weights(
            lambda: build_in(dtype, build),
            checkpoint.parameters,
            dtype=dtype,
            weights=weights,
        ),
        vocabulary=vocabulary,
        folder=folder,
        fingerprint=checkpoint.fingerprint["encoder"],
        digest=served_digest(checkpoint.digest, precision),
        precision=precision,
        preset=str(checkpoint.record.get("preset", "custom")),
        known_words=KnownWords.from_file(words) if words.is_file() else None,
    )


def read_vocabulary(folder: Path, config: AnyTextEncoderConfig) -> AnyVocabulary:
    """Reads the vocabulary in the folder of an encoder, or where diffusers has it beside that.

    Raises:
        CheckpointNotFound: it is not there.
        CheckpointMismatch: it is no vocabulary of the encoder's family, or has more ids than the
            embedding has rows.
    """
    vocabulary: AnyVocabulary
    try:
        if isinstance(config, ClipTextConfig):
            file = folder / CLIP_FILE_NAME
            model = file.read_bytes() if file.is_file() else None
            vocabulary = ClipVocabulary(_found(model, folder, CLIP_FILE_NAME), config)
        else:
            names = f"{FILE_NAME} or {TOKENIZER_FILE}"
            vocabulary = Vocabulary(_found(vocabulary_model(folder), folder, names))
    except ValueError as error:
        raise CheckpointMismatch(f"{folder}: {error}") from error
    if vocabulary.size > config.vocabulary_size:
        raise CheckpointMismatch(
            f"the vocabulary in {folder} has {vocabulary.size} ids, the embedding only "
            f"{config.vocabulary_size} rows: expected the one that the encoder was trained with"
        )
    return vocabulary


def _found(model: bytes | None, folder: Path, names: str) -> bytes:
    if model is None:
        raise CheckpointNotFound(
            f"no vocabulary in {folder}: expected the file {names} beside the weights"
        )
    return model
