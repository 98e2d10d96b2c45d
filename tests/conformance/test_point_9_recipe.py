"""Point 9 of the method: the transformers' recipe, and the average of its snapshots."""

from pathlib import Path

import numpy as np

from training.optimizers import BASE_PAPER, SUPERRES_PAPER
from training.snapshots import Snapshots


def test_the_recipes_are_the_papers() -> None:
    for recipe in (BASE_PAPER, SUPERRES_PAPER):
        assert (recipe.learning_rate, recipe.weight_decay) == (1e-4, 0.045)
        assert (recipe.first_decay, recipe.second_decay) == (0.9, 0.96)
        assert (recipe.batch_size, recipe.warm_up_steps) == (512, 5000)
        assert (recipe.average_every, recipe.average_decay) == (5000, 0.7)


def test_what_is_exported_is_the_decayed_average_of_the_snapshots(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for step in (5000, 10_000, 15_000):
        snapshots.save(step, {"weight": np.full((1,), step / 5000, np.float32)})
    average = snapshots.average(BASE_PAPER.average_decay)
    np.testing.assert_allclose(average["weight"], 0.7 * (0.7 * 1 + 0.3 * 2) + 0.3 * 3, rtol=1e-6)
