"""Both tokenizers learn the same on one device and on meshes of eight."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from services.presets import preset
from tests.training.virtual_devices import losses, start
from training.mesh import AXES, Execution
from training.recipes import RECIPES
from training.tasks.tokenizer import TokenizerTask

SCRIPT = "train_small_tokenizer.py"
MESHES: list[dict[str, Any]] = [
    {"resolution": "low", "mesh": "fsdp=8"},
    {"resolution": "high", "mesh": "data=2,fsdp=4", "accumulate": 2, "remat": True},
]
STEPS = 4  # as the script's; the discriminator learns in half of them


def test_both_tokenizers_have_the_losses_of_one_device_before_and_with_the_discriminator() -> None:
    single = [{"resolution": resolution, "mesh": "data=1"} for resolution in ("low", "high")]
    one, eight = start(SCRIPT, single), start(SCRIPT, MESHES, devices=8)
    low, high = losses(one)
    expected = {"low": low, "high": high}

    assert len(low) == len(high) == STEPS + STEPS // 2
    assert np.ptp(low[:STEPS]) > 1e-2
    assert np.ptp(low[STEPS:]) > 1e-4
    for mesh, found in zip(MESHES, losses(eight), strict=True):
        wanted = expected[mesh["resolution"]]
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=str(mesh))


def test_a_mesh_that_would_divide_matrices_is_refused() -> None:
    recipes = RECIPES["tiny"]
    devices = np.array(jax.devices()[:1] * 2).reshape(1, 1, 2)
    execution = Execution(mesh=jax.sharding.Mesh(devices, AXES))
    with pytest.raises(
        ValueError, match=r"mesh: a tokenizer is divided along data and fsdp, got tensor=2"
    ):
        TokenizerTask(
            preset("tiny").low_tokenizer,
            replace(recipes.low_tokenizer, batch_size=4),
            recipes.tokenizer_losses,
            lambda _: np.zeros((4, 16, 16, 3), np.uint8),
            resolution="low",
            execution=execution,
        )
