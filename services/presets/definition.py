"""Definition of a preset: the configuration of every stage, checked against each other."""

from dataclasses import dataclass

from services.base.config import DEFAULT_STEPS as BASE_STEPS
from services.base.config import BaseConfig
from services.superres.config import DEFAULT_STEPS as SUPERRES_STEPS
from services.superres.config import SuperresConfig
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One configuration of the whole system; sizes that stages share must be equal.

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

    def __post_init__(self) -> None:
        shared = {
            "base.grid": (self.base.grid, self.low_tokenizer.grid),
            "base.vocabulary": (self.base.vocabulary, self.low_tokenizer.codebook_size),
            "base.text_hidden": (self.base.text_hidden, self.text_encoder.hidden),
            "base.text_length": (self.base.text_length, self.text_encoder.maximum_length),
            "superres.low_grid": (self.superres.low_grid, self.base.grid),
            "superres.low_vocabulary": (self.superres.low_vocabulary, self.base.vocabulary),
            "superres.grid": (self.superres.grid, self.high_tokenizer.grid),
            "superres.vocabulary": (self.superres.vocabulary, self.high_tokenizer.codebook_size),
            "superres.text_hidden": (self.superres.text_hidden, self.text_encoder.hidden),
            "superres.text_length": (self.superres.text_length, self.text_encoder.maximum_length),
        }
        for field, (has, needs) in shared.items():
            if has != needs:
                raise ValueError(f"preset {self.name!r}: {field} is {has}, its partner has {needs}")
