"""Definition of a preset: the configuration of every stage, with one set of shared sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.base.config import DEFAULT_STEPS as BASE_STEPS
from services.base.config import BaseConfig
from services.stages import STAGES, StageName
from services.superres.config import DEFAULT_STEPS as SUPERRES_STEPS
from services.superres.config import SuperresConfig
from services.text_encoder.config import TextEncoderConfig
from services.tokenizer.config import TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class SuperresPart:
    """What a system with a superres has for it.

    Attributes:
        config: The super-resolution transformer.
        tokenizer: The tokenizer of its grid and of the image.
        steps: Its default decoding steps.
    """

    config: SuperresConfig
    tokenizer: TokenizerConfig
    steps: int = SUPERRES_STEPS


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One configuration of the whole system, made by `preset_of`.

    Attributes:
        name: Value of `--preset`.
        text_encoder: The frozen T5 encoder.
        low_tokenizer: The tokenizer of the base's grid.
        base: The base transformer.
        base_steps: Default decoding steps of base.
        superres_part: The superres and its tokenizer; None if the base's grid is that of the image.
    """

    name: str
    text_encoder: TextEncoderConfig
    low_tokenizer: TokenizerConfig
    base: BaseConfig
    base_steps: int = BASE_STEPS
    superres_part: SuperresPart | None

    @property
    def stages(self) -> tuple[StageName, ...]:
        """Names of the stages, in the order of the pipeline."""
        return tuple(name for name in STAGES if name != "superres" or self.superres_part)

    @property
    def tokenizers(self) -> dict[str, TokenizerConfig]:
        """The tokenizers by the name of their checkpoint; the last one is that of the image."""
        high = {} if self.superres_part is None else {"high": self.superres_part.tokenizer}
        return {"low": self.low_tokenizer, **high}

    @property
    def side_px(self) -> int:
        """Side of the image, in pixels."""
        return list(self.tokenizers.values())[-1].image_size

    @property
    def superres(self) -> SuperresConfig:
        """The super-resolution transformer.

        Raises:
            ValueError: this system has none.
        """
        return self._of_superres().config

    @property
    def high_tokenizer(self) -> TokenizerConfig:
        """The tokenizer of the superres's grid and of the image.

        Raises:
            ValueError: this system has no superres.
        """
        return self._of_superres().tokenizer

    @property
    def superres_steps(self) -> int:
        """Default decoding steps of superres.

        Raises:
            ValueError: this system has no superres.
        """
        return self._of_superres().steps

    def _of_superres(self) -> SuperresPart:
        if self.superres_part is None:
            raise ValueError(f"preset {self.name} has no superres: expected one that does")
        return self.superres_part


def preset_of(
    name: str,
    *,
    text_encoder: TextEncoderConfig,
    low_tokenizer: TokenizerConfig,
    high_tokenizer: TokenizerConfig | None = None,
    base: Mapping[str, int],
    superres: Mapping[str, int] | None = None,
) -> Preset:
    """Composes a preset; sizes that stages share are those of the tokenizers and the text encoder.

    `base` and `superres` are the sizes of their configurations that no other stage has. A system
    without a superres has no high tokenizer either.

    Raises:
        ValueError: only one of these two is given.
    """
    text = {"text_hidden": text_encoder.hidden, "text_length": text_encoder.maximum_length}
    low_grid, low_vocabulary = low_tokenizer.grid, low_tokenizer.codebook_size
    if (high_tokenizer is None) != (superres is None):
        raise ValueError(f"{name}: expected both high_tokenizer and superres, or neither; got one")
    superres_part = None
    if high_tokenizer is not None and superres is not None:
        config = SuperresConfig(
            low_grid=low_grid,
            low_vocabulary=low_vocabulary,
            grid=high_tokenizer.grid,
            vocabulary=high_tokenizer.codebook_size,
            **text,
            **superres,
        )
        superres_part = SuperresPart(config=config, tokenizer=high_tokenizer)
    return Preset(
        name=name,
        text_encoder=text_encoder,
        low_tokenizer=low_tokenizer,
        base=BaseConfig(grid=low_grid, vocabulary=low_vocabulary, **text, **base),
        superres_part=superres_part,
    )
