"""Point 9 of the method: the transformers' recipe, and the average of its snapshots."""

import jax.numpy as jnp
import numpy as np
import optax

from training.optimizers import BASE_PAPER, SUPERRES_PAPER, Recipe
from training.state import learn, new_learner, served


def test_the_recipes_are_the_papers() -> None:
    for recipe in (BASE_PAPER, SUPERRES_PAPER):
        assert (recipe.learning_rate, recipe.weight_decay) == (1e-4, 0.045)
        assert (recipe.first_decay, recipe.second_decay) == (0.9, 0.96)
        assert (recipe.batch_size, recipe.warm_up_steps) == (512, 5000)
        assert (recipe.average_every, recipe.average_decay) == (5000, 0.7)


def test_what_is_served_is_the_decayed_average_of_the_snapshots() -> None:
    recipe = Recipe(
        steps=100,
        batch_size=1,
        learning_rate=1.0,
        warm_up_steps=1,
        first_decay=0.0,
        second_decay=0.0,
        weight_decay=0.0,
        average_every=2,
        average_decay=0.7,
    )
    optimizer = optax.sgd(1.0)
    learner = new_learner({"weight": jnp.zeros(())}, optimizer)
    assert float(served(learner)["weight"]) == 0.0
    for step in range(6):  # the weight counts steps: 1, 2, ..., 6; snapshots at 2, 4, 6
        gradients = {"weight": -jnp.ones(())}
        learner = learn(learner, gradients, optimizer, recipe, jnp.int32(step))
    by_hand = 0.7 * (0.7 * 2 + 0.3 * 4) + 0.3 * 6
    assert float(learner.parameters["weight"]) == 6.0
    assert int(learner.snapshots) == 3
    np.testing.assert_allclose(served(learner)["weight"], by_hand, rtol=1e-6)
