"""Changes of a recipe and of a tokenizer's losses, by flags of a command line and by a file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from training.optimizers import Recipe
from training.tasks.tokenizer_losses import TokenizerLosses

LOSSES = "losses"  # table of the file, and prefix of the flags


@dataclass(frozen=True, kw_only=True)
class RecipeChanges:
    """Numbers of a recipe that a command line gives; None leaves the recipe's own.

    Attributes:
        recipe: TOML file of numbers by the names below; flags take precedence over it.
        steps: Optimizer steps. Without warm_up_steps the warm-up takes a tenth of them at most.
        batch_size: Examples a step.
        learning_rate: Its peak, more than 0 and at most 1.
        warm_up_steps: Steps of linear growth to the peak.
        first_decay: Of the running mean of gradients (beta 1), 0 to below 1.
        second_decay: Of the running mean of squared gradients (beta 2), 0 to below 1.
        weight_decay: Decoupled; the learning rate scales it.
        average_every: Steps between the snapshots that the exported weights average.
        average_decay: Weight of the old average when a snapshot joins it, 0 to below 1.
        distinct_examples: Examples after which a transformer sees the same ones again.
        low_corruption: Share of low-resolution tokens that superres sees replaced by random ones.
        precision: Of the factors of a transformer's matrix products; parameters are float32.
        optimizer: Of a transformer; the paper's is adafactor.
    """

    recipe: Path | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    warm_up_steps: int | None = None
    first_decay: float | None = None
    second_decay: float | None = None
    weight_decay: float | None = None
    average_every: int | None = None
    average_decay: float | None = None
    distinct_examples: int | None = None
    low_corruption: float | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    optimizer: Literal["adafactor", "muon"] | None = None

    def applied(self, recipe: Recipe, *, with_losses: bool = False) -> Recipe:
        """Returns a recipe with these changes.

        Args:
            recipe: What to change.
            with_losses: Whether the file may have the table of `LossChanges`.

        Raises:
            ValueError: the file has an unknown name or a value of another type, or the recipe
                would not be valid.
            OSError: the file cannot be read.
        """
        changes: dict[str, Any] = {}
        if self.recipe is not None:
            content = _read(self.recipe)
            if with_losses:
                content.pop(LOSSES, None)
            changes = _checked(content, Recipe, str(self.recipe))
        changes |= {name: value for name, value in _given(self).items() if name != "recipe"}
        if "steps" in changes and "warm_up_steps" not in changes:
            changes["warm_up_steps"] = max(1, min(recipe.warm_up_steps, changes["steps"] // 10))
        return replace(recipe, **changes)


@dataclass(frozen=True, kw_only=True)
class LossChanges:
    """Numbers of a tokenizer's losses that a command line gives; None leaves the preset's own.

    Attributes:
        commitment: Weight of the distance of encoder outputs to their codes.
        perceptual: Weight of the distance in the network that --perceptual gives.
        edges: Weight of the relative error of the differences between neighbouring pixels.
        entropy: Weight of the penalty on undecided positions and unequal use of codes.
        entropy_temperature: Squared distance that makes a code e times less likely there.
        adversarial: Weight of the loss against the discriminator; 0 trains none.
        adaptive_adversarial: Multiply that weight by VQGAN's ratio of gradient norms.
        adversarial_start_step: First step that trains the discriminator and against it.
        discriminator_width: Its channels at half resolution, a multiple of 4.
        lecam: Weight of the LeCam regularisation of the discriminator.
        r1: Weight of the R1 regularisation of the discriminator.
        usage_decay: Of the running mean of how often each code is used, 0 to below 1.
        revive_below: Share of a fair use under which a code is replaced, 0 to below 1.
    """

    commitment: float | None = None
    perceptual: float | None = None
    edges: float | None = None
    entropy: float | None = None
    entropy_temperature: float | None = None
    adversarial: float | None = None
    adaptive_adversarial: bool | None = None
    adversarial_start_step: int | None = None
    discriminator_width: int | None = None
    lecam: float | None = None
    r1: float | None = None
    usage_decay: float | None = None
    revive_below: float | None = None

    def applied(self, losses: TokenizerLosses, file: Path | None = None) -> TokenizerLosses:
        """Returns losses with these changes.

        Args:
            losses: What to change.
            file: TOML file whose table [losses] has numbers by the names above; flags take
                precedence over it.

        Raises:
            ValueError: the table has an unknown name or a value of another type, or the losses
                would not be valid.
            OSError: the file cannot be read.
        """
        changes = {} if file is None else _losses_of(file)
        return replace(losses, **(changes | _given(self)))


NO_CHANGES = RecipeChanges()
NO_LOSS_CHANGES = LossChanges()


def _given(changes: RecipeChanges | LossChanges) -> dict[str, Any]:
    return {name: value for name, value in vars(changes).items() if value is not None}


def _losses_of(file: Path) -> dict[str, Any]:
    table = _read(file).get(LOSSES, {})
    if not isinstance(table, dict):
        raise ValueError(f"{file}: expected a table [{LOSSES}], got {LOSSES} = {table!r}")
    return _checked(table, TokenizerLosses, f"{file}: [{LOSSES}]")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no TOML file: {error}") from error


def _checked(content: Mapping[str, Any], kind: type, place: str) -> dict[str, Any]:
    """Returns the content as keyword arguments of a dataclass, integers as floats where it has any.

    Raises:
        ValueError: the dataclass has no such name, or a value of another type.
    """
    types, values = get_type_hints(kind), {}
    for name, value in content.items():
        if name not in types:
            raise ValueError(f"{place}: unknown name {name!r}: expected some of {', '.join(types)}")
        allowed = get_args(types[name]) or (types[name],)
        if value in allowed or type(value) in allowed:
            values[name] = value
        elif float in allowed and type(value) is int:
            values[name] = float(value)
        else:
            expected = " or ".join(
                each if isinstance(each, str) else each.__name__ for each in allowed
            )
            raise ValueError(f"{place}: {name}: expected {expected}, got {value!r}")
    return values
