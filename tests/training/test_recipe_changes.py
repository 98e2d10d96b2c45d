"""Changes of a recipe by flags and by a file."""

from pathlib import Path

import pytest

from training.recipe_changes import NO_CHANGES, RecipeChanges
from training.recipes import RECIPES

BASE = RECIPES["demo256"].base


def test_without_changes_the_recipe_stays() -> None:
    assert NO_CHANGES.applied(BASE) == BASE


def test_flags_take_precedence_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('batch_size = 64\nlearning_rate = 1\nprecision = "float32"\n')
    recipe = RecipeChanges(recipe=file, batch_size=8).applied(BASE)

    assert (recipe.batch_size, recipe.learning_rate, recipe.precision) == (8, 1.0, "float32")
    assert recipe.steps == BASE.steps


def test_the_warm_up_shrinks_with_the_steps_unless_it_is_given() -> None:
    assert RecipeChanges(steps=100).applied(BASE).warm_up_steps == 10
    assert RecipeChanges(steps=100, warm_up_steps=50).applied(BASE).warm_up_steps == 50


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("steps =", "is no TOML file"),
        ("step = 3", "unknown name 'step': expected some of steps, batch_size"),
        ('steps = "3"', "steps: expected int, got '3'"),
        ("steps = 3.5", "steps: expected int, got 3.5"),
        ("steps = true", "steps: expected int, got True"),
        ('precision = "float16"', "precision: expected float32 or bfloat16, got 'float16'"),
        ("learning_rate = 1e9", "learning_rate must be more than 0 and at most 1, got 1e\\+09"),
        ("batch_size = 0", "batch_size must be at least 1, got 0"),
        ("average_decay = 1.0", r"average_decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(content)

    with pytest.raises(ValueError, match=said):
        RecipeChanges(recipe=file).applied(BASE)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        RecipeChanges(recipe=tmp_path / "nowhere.toml").applied(BASE)
