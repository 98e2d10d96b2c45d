"""How long and how fast each stage of each preset learns."""

from dataclasses import dataclass, replace

from training.data.scenes import BOARD_8, BOARD_16, Board
from training.optimizers import BASE_PAPER, SUPERRES_PAPER, TOKENIZER_PAPER, Recipe
from training.tasks.tokenizer_losses import TokenizerLosses


@dataclass(frozen=True, kw_only=True)
class PresetRecipes:
    """The recipes of one preset, one a checkpoint.

    Attributes:
        text_encoder: Of a small text encoder; None if the preset has T5's own.
        low_tokenizer: Of the base's tokenizer.
        high_tokenizer: Of the superres's tokenizer.
        tokenizer_losses: Weights of the losses of both tokenizers.
        tokenizer_crop: Divides a picture's side into that of the crops tokenizers train on.
        base: Of the base transformer.
        superres: Of the super-resolution transformer.
        board: Grid that composed scenes are laid out on; a cell is a low-resolution token.
        objects: How many of a vocabulary's objects scenes show, from its first; None for all.
    """

    low_tokenizer: Recipe
    high_tokenizer: Recipe
    tokenizer_losses: TokenizerLosses
    base: Recipe
    superres: Recipe
    text_encoder: Recipe | None = None
    tokenizer_crop: int = 1
    board: Board = BOARD_8
    objects: int | None = None


_PAPER = PresetRecipes(
    low_tokenizer=TOKENIZER_PAPER,
    high_tokenizer=TOKENIZER_PAPER,
    tokenizer_losses=TokenizerLosses(),
    base=BASE_PAPER,
    superres=SUPERRES_PAPER,
)


def _small(steps: int, batch_size: int, learning_rate: float, weight_decay: float) -> Recipe:
    """A recipe for models of a few million parameters: higher rate, shorter averages."""
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warm_up_steps=max(1, steps // 40),
        first_decay=0.9,
        second_decay=0.99,
        weight_decay=weight_decay,
        average_every=max(1, steps // 100),
    )


# A few minutes on one CPU core. At a rate of 2e-3 the loss falls as far, but embeddings lose what
# a fresh encoder has: a linear probe reads which of four places a noun names in 58% of pairs from
# this rate, in 42% from that one.
_DEMO_TEXT = replace(_small(1200, 32, 3e-4, 1e-4), warm_up_steps=50, average_every=50)

# Sized for two CPU cores; docs/training.md has the arithmetic and what each took.
_DEMO = PresetRecipes(
    text_encoder=_DEMO_TEXT,
    low_tokenizer=_small(4000, 8, 2e-3, 1e-4),
    high_tokenizer=_small(1800, 4, 1.5e-3, 1e-4),
    tokenizer_losses=TokenizerLosses(adversarial=0.0),
    base=replace(_small(27000, 16, 1e-3, 0.045), distinct_examples=80_000, precision="bfloat16"),
    superres=replace(_small(15000, 8, 1e-3, 0.045), distinct_examples=24_000, precision="bfloat16"),
)

_DEMO256 = PresetRecipes(
    text_encoder=replace(_DEMO_TEXT, steps=1400, warm_up_steps=100),
    low_tokenizer=_small(2000, 32, 2e-3, 1e-4),
    high_tokenizer=_small(5000, 4, 1e-3, 1e-4),
    tokenizer_losses=TokenizerLosses(perceptual=0.1, edges=0.3, adversarial=0.0),
    base=replace(
        _small(20_000, 16, 2e-3, 0.045),
        distinct_examples=128_000,
        precision="bfloat16",
        optimizer="muon",
        first_decay=0.95,
    ),
    superres=replace(
        _small(6000, 8, 2e-3, 0.045),
        distinct_examples=32_000,
        low_corruption=0.05,
        precision="bfloat16",
        optimizer="muon",
        first_decay=0.95,
    ),
    tokenizer_crop=2,
    board=BOARD_16,
    objects=256,
)

_TINY = PresetRecipes(
    text_encoder=replace(_small(20, 8, 2e-3, 1e-4), warm_up_steps=2, average_every=5),
    low_tokenizer=_small(20, 4, 1e-3, 1e-4),
    high_tokenizer=_small(20, 4, 1e-3, 1e-4),
    tokenizer_losses=TokenizerLosses(adversarial_start_step=10, discriminator_width=8),
    base=_small(20, 4, 1e-3, 0.045),
    superres=_small(20, 4, 1e-3, 0.045),
)

RECIPES = {
    "muse-3b": _PAPER,
    "muse-632m": _PAPER,
    "demo": _DEMO,
    "demo256": _DEMO256,
    "tiny": _TINY,
}
