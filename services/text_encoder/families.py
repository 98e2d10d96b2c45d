"""The families of networks that the text encoder stage serves, by the name in a checkpoint."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from services.runtime.checkpoints.serialization import OWN_FAMILY, parameters_fingerprint
from services.text_encoder.clip import ClipTextEncoder
from services.text_encoder.clip_config import ClipTextConfig
from services.text_encoder.clip_vocabulary import ClipVocabulary
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.model import TextEncoder
from services.text_encoder.vocabulary import Vocabulary

CLIP_FAMILY = "clip"
AnyTextEncoderConfig: TypeAlias = TextEncoderConfig | ClipTextConfig
AnyTextEncoder: TypeAlias = TextEncoder | ClipTextEncoder
AnyVocabulary: TypeAlias = Vocabulary | ClipVocabulary

CONFIG_TYPES: Mapping[str, type[AnyTextEncoderConfig]] = {
    OWN_FAMILY: TextEncoderConfig,
    CLIP_FAMILY: ClipTextConfig,
}


def build_text_encoder(
    config: AnyTextEncoderConfig, *, dtype: DTypeLike, param_dtype: DTypeLike
) -> AnyTextEncoder:
    """Builds the network of a configuration."""
    if isinstance(config, ClipTextConfig):
        return ClipTextEncoder(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype)
    return TextEncoder(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype)


def encoder_fingerprint(
    config: AnyTextEncoderConfig, parameters: Mapping[str, np.ndarray], vocabulary: bytes
) -> str:
    """Returns what identifies the embeddings of an encoder: "t5:" or "clip:" and 16 hex digits."""
    prefix = "clip" if isinstance(config, ClipTextConfig) else "t5"
    return parameters_fingerprint(prefix, parameters, vocabulary)
