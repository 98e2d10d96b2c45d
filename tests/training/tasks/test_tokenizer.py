"""The tokenizer's task: its perceptual loss, and the convolutions it trains with."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from services.nn.parameters import with_parameters
from services.presets import preset
from services.tokenizer.model import Convolution, Tokenizer
from training import runs
from training.loop import compiled_step
from training.mesh import one_device
from training.perceptual.backbones import VGG16
from training.perceptual.errors import LpipsError
from training.perceptual.files import read_lpips, write_lpips
from training.pictures import to_float
from training.recipe_changes import RecipeChanges
from training.tasks.tokenizer import TokenizerTask

TINY = preset("tiny")


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a random network of two channels."""
    generator = np.random.default_rng(0)
    weights = {f"heads.{index}": np.ones(2) for index in range(len(VGG16.compared))}
    for index in range(VGG16.convolutions):
        shape = (3, 3, 2 if index else 3, 2)
        weights[f"convolutions.{index}.kernel"] = 0.4 * generator.standard_normal(shape)
        weights[f"convolutions.{index}.bias"] = np.full(2, 0.1)
    file = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    single = {name: array.astype(np.float32) for name, array in weights.items()}
    write_lpips(file, VGG16, single, {})
    return file


def task(artwork: Path, perceptual: Path | None) -> TokenizerTask:
    """The task of the low tokenizer."""
    return runs.tokenizer_task(
        TINY,
        artwork,
        artwork / "run",
        resolution="low",
        seed=0,
        changes=RecipeChanges(steps=2),
        initialize_from=None,
        perceptual=perceptual,
    )


def test_a_step_adds_the_weighted_distance_and_reports_it(artwork: Path, lpips: Path) -> None:
    plain, perceptual = task(artwork, None), task(artwork, lpips)
    batch = plain.batch(0)
    parameters = plain.initial_state(plain.given).tokenizer.params
    loss, (metrics, fake, _, _) = jax.jit(lambda p: plain._loss(p, to_float(batch), None))(
        parameters
    )
    assert "perceptual" not in metrics

    step = compiled_step(perceptual, one_device())
    _, reported = step(perceptual.initial_state(perceptual.given), batch, 0, perceptual.phase(0))

    assert perceptual._perceptual is not None
    distance = float(np.mean(perceptual._perceptual(fake, to_float(batch))))
    assert distance > 0
    np.testing.assert_allclose(reported["perceptual"], distance, rtol=1e-2)
    np.testing.assert_allclose(reported["loss"], loss + 0.05 * distance, rtol=1e-4)


def test_the_checkpoint_names_the_network_and_its_file(
    artwork: Path, lpips: Path, tmp_path: Path
) -> None:
    for name, file in (("with", lpips), ("without", None)):
        trained = task(artwork, file)
        trained.export(trained.params(trained.initial_state(trained.given)), tmp_path / name, {})
    network, none = (
        json.loads((tmp_path / name / "training.json").read_text())["perceptual_network"]
        for name in ("with", "without")
    )

    assert none is None
    assert network == read_lpips(lpips).fingerprint
    assert network.startswith("lpips-vgg16:")


def test_a_missing_network_is_refused_before_anything_is_trained(
    artwork: Path, tmp_path: Path
) -> None:
    with pytest.raises(LpipsError, match=r"training\.perceptual convert"):
        task(artwork, tmp_path / "missing.safetensors")


def test_training_multiplies_matrices_in_wide_convolutions_and_serving_agrees(
    artwork: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.tasks.tokenizer.LEAST_INPUTS", 8)
    trained = task(artwork, None)
    images = to_float(trained.batch(0))
    parameters = trained.initial_state(trained.given).tokenizer.params
    mine = trained._tokenizer(parameters)
    served = with_parameters(lambda: Tokenizer(TINY.low_tokenizer, rngs=nnx.Rngs(0)), parameters)
    products = [
        [layer.in_products for _, layer in nnx.iter_graph(model) if isinstance(layer, Convolution)]
        for model in (mine, served)
    ]

    assert sum(products[0]) > sum(products[1])
    np.testing.assert_allclose(mine.encoder(images), served.encoder(images), atol=1e-4)
