"""The named systems: which shape each stage has, and how many steps it decodes in. No JAX."""

from dataclasses import dataclass

from services.base import config as base
from services.superres import config as superres
from services.text_encoder import config as text_encoder
from services.tokenizer import config as tokenizer


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One configuration of the whole system.

    Attributes:
        name: What `--preset` calls it.
        text_encoder: The frozen T5 encoder.
        low_tokenizer: The tokenizer of the base's grid.
        high_tokenizer: The tokenizer of the superres's grid and of the picture.
        base: The base transformer.
        superres: The super-resolution transformer.
        base_steps: Default decoding steps of base (Muse, section 2.8: 24).
        superres_steps: Default decoding steps of superres (Muse, section 2.8: 8).
    """

    name: str
    text_encoder: text_encoder.TextEncoderConfig
    low_tokenizer: tokenizer.TokenizerConfig
    high_tokenizer: tokenizer.TokenizerConfig
    base: base.BaseConfig
    superres: superres.SuperresConfig
    base_steps: int = 24
    superres_steps: int = 8

    def __post_init__(self) -> None:
        agreements = {
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
        for field, (has, needs) in agreements.items():
            if has != needs:
                raise ValueError(f"preset {self.name!r}: {field} is {has}, its partner has {needs}")


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="muse-3b",
            text_encoder=text_encoder.T5_XXL,
            low_tokenizer=tokenizer.F16_256,
            high_tokenizer=tokenizer.F8_512,
            base=base.MUSE_3B,
            superres=superres.MUSE,
        ),
        Preset(
            name="muse-632m",
            text_encoder=text_encoder.T5_XXL,
            low_tokenizer=tokenizer.F16_256,
            high_tokenizer=tokenizer.F8_512,
            base=base.MUSE_632M,
            superres=superres.MUSE,
        ),
        Preset(
            name="demo",
            text_encoder=text_encoder.DEMO,
            low_tokenizer=tokenizer.DEMO_LOW,
            high_tokenizer=tokenizer.DEMO_HIGH,
            base=base.DEMO,
            superres=superres.DEMO,
        ),
        Preset(
            name="demo256",
            text_encoder=text_encoder.DEMO256,
            low_tokenizer=tokenizer.DEMO256_LOW,
            high_tokenizer=tokenizer.DEMO256_HIGH,
            base=base.DEMO256,
            superres=superres.DEMO256,
        ),
        Preset(
            name="tiny",
            text_encoder=text_encoder.TINY,
            low_tokenizer=tokenizer.TINY_LOW,
            high_tokenizer=tokenizer.TINY_HIGH,
            base=base.TINY,
            superres=superres.TINY,
        ),
    )
}


def preset(name: str) -> Preset:
    """Returns the preset of that name.

    Raises:
        ValueError: no preset has that name.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
