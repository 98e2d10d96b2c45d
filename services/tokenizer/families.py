"""The families of networks that the tokenizer stage serves, by the name in a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from flax import nnx

from services.runtime.checkpoints.families import load_family
from services.runtime.checkpoints.serialization import OWN_FAMILY, Checkpoint
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import Tokenizer
from services.tokenizer.vqgan import Vqgan
from services.tokenizer.vqgan_config import VqganConfig

STAGE = "tokenizer"
VQGAN_FAMILY = "vqgan"
AnyTokenizerConfig: TypeAlias = TokenizerConfig | VqganConfig
AnyTokenizer: TypeAlias = Tokenizer | Vqgan

CONFIG_TYPES: Mapping[str, type[AnyTokenizerConfig]] = {
    OWN_FAMILY: TokenizerConfig,
    VQGAN_FAMILY: VqganConfig,
}


def load_tokenizer(folder: Path) -> Checkpoint[AnyTokenizerConfig]:
    """Reads a checkpoint of a tokenizer of any family that is served.

    Raises:
        CheckpointError: it is missing, damaged, or of another stage, family or shape.
    """
    return load_family(folder, stage=STAGE, config_types=CONFIG_TYPES)


def build_tokenizer(config: AnyTokenizerConfig, *, rngs: nnx.Rngs) -> AnyTokenizer:
    """Builds the network of a configuration, in float32."""
    if isinstance(config, VqganConfig):
        return Vqgan(config, rngs=rngs)
    return Tokenizer(config, rngs=rngs)
