"""Definition of a preset: the configuration of every stage, with one set of shared sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.base.config import DEFAULT_STEPS as BASE_STEPS
from services.base.config import BaseConfig
from services.superres.config import DEFAULT_STEPS as SUPERRES_STEPS
from services.superres.config import SuperresConfig
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One configuration of the whole system, made by `preset_of`.

    Attributes:
        name: Value of `--preset`.
        text_encoder: The frozen T5 encoder.
        low_tokenizer: The tokenizer of the base's grid.
        high_tokenizer: The tokenizer of the superres's grid and of the image.
        base: The base transformer.
        superres: The super-resolution transformer.
        base_steps: Default decoding steps of base.
        superres_steps: Default decoding steps of superres.
    """

    name: str
    text_encoder: TextEncoderConfig
    low_tokenizer: TokenizerConfig
    high_tokenizer: TokenizerConfig
    base: BaseConfig
    superres: SuperresConfig
    base_steps: int = BASE_STEPS
    superres_steps: int = SUPERRES_STEPS


def preset_of(
    name: str,
    *,
    text_encoder: TextEncoderConfig,
    low_tokenizer: TokenizerConfig,
    high_tokenizer: TokenizerConfig,
    base: Mapping[str, int],
    superres: Mapping[str, int],
) -> Preset:
    """Composes a preset; sizes that stages share are those of the tokenizers and the text encoder.

    `base` and `superres` are the sizes of their configurations that no other stage has.
    """
    text = {"text_hidden": text_encoder.hidden, "text_length": text_encoder.maximum_length}
    low_grid, low_vocabulary = low_tokenizer.grid, low_tokenizer.codebook_size
    return Preset(
        name=name,
        text_encoder=text_encoder,
        low_tokenizer=low_tokenizer,
        high_tokenizer=high_tokenizer,
        base=BaseConfig(grid=low_grid, vocabulary=low_vocabulary, **text, **base),
        superres=SuperresConfig(
            low_grid=low_grid,
            low_vocabulary=low_vocabulary,
            grid=high_tokenizer.grid,
            vocabulary=high_tokenizer.codebook_size,
            **text,
            **superres,
        ),
    )
