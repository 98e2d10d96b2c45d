"""Changes of a recipe by flags and by a file."""

from dataclasses import fields
from pathlib import Path

import pytest

from training.optimizers import Recipe
from training.recipe_changes import NO_CHANGES, NO_LOSS_CHANGES, LossChanges, RecipeChanges
from training.recipes import RECIPES
from training.tasks.tokenizer_losses import TokenizerLosses

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


def test_every_number_can_be_changed() -> None:
    def names(kind: type) -> set[str]:
        return {field.name for field in fields(kind)}

    assert names(RecipeChanges) - {"recipe"} == names(Recipe)
    assert names(LossChanges) == names(TokenizerLosses)


def test_the_losses_have_a_table_of_the_file_over_which_flags_take_precedence(
    tmp_path: Path,
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        "steps = 100\n[losses]\nadversarial = 1\nadaptive_adversarial = true\nlecam = 0.01\n"
    )
    losses = LossChanges(lecam=0.05).applied(TokenizerLosses(), file)

    assert (losses.adversarial, losses.adaptive_adversarial, losses.lecam) == (1.0, True, 0.05)
    assert losses.commitment == TokenizerLosses().commitment
    assert RecipeChanges(recipe=file).applied(BASE, with_losses=True).steps == 100
    assert NO_LOSS_CHANGES.applied(losses) == losses


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[losses]\nlpips = 1.0", r"\[losses\]: unknown name 'lpips': expected some of commitment"),
        ("[losses]\nlecam = true", r"\[losses\]: lecam: expected float, got True"),
        ("[losses]\nadaptive_adversarial = 1.0", "adaptive_adversarial: expected bool, got 1.0"),
        ("[losses]\nr1 = -1", "losses.r1 must be at least 0 and finite, got -1.0"),
        ("losses = 3", r"expected a table \[losses\], got losses = 3"),
    ],
)
def test_a_wrong_table_of_losses_is_refused_by_name(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(content)

    with pytest.raises(ValueError, match=said):
        NO_LOSS_CHANGES.applied(TokenizerLosses(), file)


def test_a_stage_without_losses_refuses_their_table(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("[losses]\nlecam = 0.1\n")

    with pytest.raises(ValueError, match="unknown name 'losses'"):
        RecipeChanges(recipe=file).applied(BASE)
