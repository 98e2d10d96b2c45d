"""The least bytes that must cross a chip's memory for one image, in bfloat16.

Every weight that takes part is read once for each run of its program: once for what is computed
once, once a step for the rest. Of embedding tables only the rows that are looked up count. Cached
keys and values are written once and read once a step (both guidance branches share them, without a
negative prompt). Inputs are read and outputs written. Activations are taken to stay on the chip,
which no chip manages for all of them: this is a bound that no implementation goes below.
"""

from collections.abc import Mapping
from typing import NamedTuple

from services.base.config import BaseConfig
from services.superres.config import SuperresConfig
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.families import AnyTokenizerConfig

BFLOAT16_BYTES = 2
TOKEN_BYTES = 4  # an id is an int32
PIXEL_BYTES = 3  # red, green, blue

# Parameters that only the once-computed context of a masked transformer uses, by path prefix.
CONTEXT_PREFIXES = (
    "text_projection.",
    "text_norm.",
    "low_embedding.",
    "low_blocks.",
    "low_norm.",
    "blocks.cross.key_value.",
    "blocks.cross.key_norm.",
)
EMBEDDING_TABLES = ("embedding", "embedding.token", "low_embedding.token")


def _read_whole(sizes: Mapping[str, int]) -> int:
    """Numbers in parameters that are read whole, which embedding tables are not."""
    return sum(size for name, size in sizes.items() if name not in EMBEDDING_TABLES)


class Traffic(NamedTuple):
    """Bytes of one run of a program.

    Attributes:
        shared: Read once, whatever the number of images: weights.
        each: That every image adds.
    """

    shared: int
    each: int

    def of(self, images: int) -> int:
        """Returns the bytes of a run for so many images."""
        return self.shared + images * self.each


def text_encoder(config: TextEncoderConfig, sizes: Mapping[str, int]) -> Traffic:
    """Bytes of prompts of `maximum_length` tokens: weights, rows of the table, the embedding."""
    rows = min(config.maximum_length, config.vocabulary_size)
    numbers = (rows + config.maximum_length) * config.hidden
    return Traffic(
        shared=BFLOAT16_BYTES * _read_whole(sizes),
        each=BFLOAT16_BYTES * numbers + TOKEN_BYTES * config.maximum_length,
    )


def cached_bytes(config: BaseConfig | SuperresConfig) -> int:
    """Bytes of one image's keys and values of cross-attention, which every step reads."""
    low_tokens = config.low_tokens if isinstance(config, SuperresConfig) else 0
    return BFLOAT16_BYTES * 2 * config.layers * (low_tokens + config.text_length) * config.hidden


def masked_context(config: BaseConfig | SuperresConfig, sizes: Mapping[str, int]) -> Traffic:
    """Bytes of what base or superres computes once, before the first step."""
    once = {name: size for name, size in sizes.items() if name.startswith(CONTEXT_PREFIXES)}
    low_rows = (
        min(config.low_tokens, config.low_vocabulary) if isinstance(config, SuperresConfig) else 0
    )
    text = config.text_length * config.text_hidden
    return Traffic(
        shared=BFLOAT16_BYTES * _read_whole(once),
        each=BFLOAT16_BYTES * (low_rows * config.hidden + text) + cached_bytes(config),
    )


def masked_step(config: BaseConfig | SuperresConfig, sizes: Mapping[str, int]) -> Traffic:
    """Bytes of one step of base or superres."""
    each_step = {
        name: size for name, size in sizes.items() if not name.startswith(CONTEXT_PREFIXES)
    }
    rows = min(config.tokens, config.vocabulary + 1)
    return Traffic(
        shared=BFLOAT16_BYTES * _read_whole(each_step),
        each=BFLOAT16_BYTES * rows * config.hidden + cached_bytes(config),
    )


def masked_decode(
    config: BaseConfig | SuperresConfig, sizes: Mapping[str, int], *, steps: int
) -> int:
    """Bytes of a whole decode of base or superres; `sizes` as `parameter_sizes` returns them."""
    low_tokens = config.low_tokens if isinstance(config, SuperresConfig) else 0
    ids = TOKEN_BYTES * (low_tokens + config.tokens)
    context, step = masked_context(config, sizes), masked_step(config, sizes)
    return context.of(1) + steps * step.of(1) + ids


def tokenizer_encode(config: AnyTokenizerConfig, sizes: Mapping[str, int]) -> int:
    """Bytes of turning one image into tokens: encoder and codebook, picture in, ids out."""
    weights = sum(size for name, size in sizes.items() if not name.startswith("decoder."))
    return BFLOAT16_BYTES * weights + _picture_and_ids(config)


def tokenizer_decode(config: AnyTokenizerConfig, sizes: Mapping[str, int]) -> int:
    """Bytes of turning tokens into one image: decoder and the codes looked up, ids in, picture."""
    weights = sum(size for name, size in sizes.items() if name.startswith("decoder."))
    codes = min(config.grid**2, config.codebook_size) * config.code_dim
    return BFLOAT16_BYTES * (weights + codes) + _picture_and_ids(config)


def _picture_and_ids(config: AnyTokenizerConfig) -> int:
    return PIXEL_BYTES * config.image_size**2 + TOKEN_BYTES * config.grid**2
