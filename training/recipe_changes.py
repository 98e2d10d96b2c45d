"""Changes of a recipe, by flags of a command line and by a file."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from training.optimizers import Recipe


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

    def applied(self, recipe: Recipe) -> Recipe:
        """Returns a recipe with these changes.

        Raises:
            ValueError: the file has an unknown name or a value of another type, or the recipe
                would not be valid.
            OSError: the file cannot be read.
        """
        changes = {} if self.recipe is None else _read(self.recipe)
        flags = {name: value for name, value in vars(self).items() if value is not None}
        changes |= {name: value for name, value in flags.items() if name != "recipe"}
        if "steps" in changes and "warm_up_steps" not in changes:
            changes["warm_up_steps"] = max(1, min(recipe.warm_up_steps, changes["steps"] // 10))
        return replace(recipe, **changes)


NO_CHANGES = RecipeChanges()


def _read(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no TOML file: {error}") from error
    types = get_type_hints(Recipe)
    for name, value in content.items():
        if name not in types:
            raise ValueError(f"{file}: unknown name {name!r}: expected some of {', '.join(types)}")
        allowed = get_args(types[name]) or (types[name],)
        if value in allowed or type(value) in allowed:
            continue
        if float in allowed and type(value) is int:
            content[name] = float(value)
            continue
        expected = " or ".join(each if isinstance(each, str) else each.__name__ for each in allowed)
        raise ValueError(f"{file}: {name}: expected {expected}, got {value!r}")
    return content
