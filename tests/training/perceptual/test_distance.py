"""LPIPS is what PyTorch computes from the same weights, and a distance one can train with."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.perceptual.backbones import BACKBONES, Backbone
from training.perceptual.distance import Lpips

GOLDENS = Path(__file__).parents[2] / "goldens" / "perceptual"
SIZES = {"alex": (33, 40), "vgg16": (17, 20)}


def pictures(network: str) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures and versions of them that differ in a few pixels, and in many."""
    generator = np.random.default_rng(1)
    references = generator.uniform(-1, 1, (2, *SIZES[network], 3)).astype(np.float32)
    images = references.copy()
    images[0, 3:9, 3:9] *= -1
    images[1] = np.clip(images[1] + 0.3 * generator.standard_normal(images[1].shape), -1, 1)
    return images, references


def distance_of_pytorch(
    backbone: Backbone, weights: Mapping[str, np.ndarray], images: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and their gradient; convolutions after the first round their factors."""
    import torch
    from torch.nn import functional

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))

    def features(pixels: torch.Tensor) -> list[torch.Tensor]:
        shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        layer, compared = (pixels.permute(0, 3, 1, 2) - shift) / scale, []
        for index in range(backbone.convolutions):
            kernel = tensor(weights[f"convolutions.{index}.kernel"].transpose(3, 2, 0, 1))
            bias = tensor(weights[f"convolutions.{index}.bias"])
            if index in backbone.pooled:
                layer = functional.max_pool2d(layer, backbone.pool_window, 2)
            stride, padding = backbone.stem_stride, backbone.stem_padding
            if index:
                layer, kernel = layer.bfloat16().float(), kernel.bfloat16().float()
                stride, padding = 1, kernel.shape[-1] // 2
            layer = functional.relu(functional.conv2d(layer, kernel, bias, stride, padding))
            if index in backbone.compared:
                compared.append(layer)
        return compared

    def unit(layer: torch.Tensor) -> torch.Tensor:
        return layer / torch.sqrt((layer**2).sum(1, keepdim=True) + 1e-10)

    pixels = tensor(images).requires_grad_()
    distances = torch.zeros(len(images))
    for index, (ours, theirs) in enumerate(
        zip(features(pixels), features(tensor(others)), strict=True)
    ):
        head = tensor(weights[f"heads.{index}"])[:, None, None]
        distances = distances + ((unit(ours) - unit(theirs)) ** 2 * head).sum(1).mean((1, 2))
    distances.sum().backward()
    assert pixels.grad is not None
    return distances.detach().numpy(), pixels.grad.numpy()


def assert_equal(lpips: Lpips, network: str, distances: np.ndarray, gradient: np.ndarray) -> None:
    """Compares distances closely, and gradients but for the rounding of theirs to bfloat16."""
    images, references = pictures(network)

    def total(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        each = lpips(images, references)
        return each.sum(), each

    ours, own = jax.jit(jax.grad(total, has_aux=True))(images)

    np.testing.assert_allclose(own, distances, rtol=1e-3)
    scale = np.sqrt(np.mean(gradient**2))
    assert np.sqrt(np.mean((np.asarray(ours) - gradient) ** 2)) < 0.03 * scale


@pytest.mark.parametrize("network", list(BACKBONES))
def test_the_distance_equals_the_committed_answers_of_pytorch(network: str) -> None:
    with np.load(GOLDENS / f"{network}.npz") as golden:
        answer = dict(golden)
    distances, gradient = answer.pop("distances"), answer.pop("gradient")
    lpips = Lpips(backbone=BACKBONES[network], weights=answer, fingerprint="random")

    assert_equal(lpips, network, distances, gradient)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("network", list(BACKBONES))
def test_the_distance_equals_that_of_pytorch_where_it_is_installed(
    networks: dict[str, Lpips], network: str
) -> None:
    lpips = networks[network]
    answer = distance_of_pytorch(lpips.backbone, lpips.weights, *pictures(network))

    assert_equal(lpips, network, *answer)


def test_equal_pictures_have_no_distance_and_order_does_not_matter(
    networks: dict[str, Lpips],
) -> None:
    images, references = pictures("alex")
    distance = jax.jit(networks["alex"].__call__)

    np.testing.assert_allclose(distance(images, images), np.zeros(2), atol=1e-12)
    there = distance(images, references)
    assert (np.asarray(there) > 0).all()
    np.testing.assert_allclose(distance(references, images), there, rtol=1e-6)


def test_a_picture_that_rectifies_to_nothing_has_a_finite_gradient(
    networks: dict[str, Lpips],
) -> None:
    lpips = networks["alex"]
    dead = {**lpips.weights, "convolutions.0.bias": np.full(4, -1e6, np.float32)}
    nothing = Lpips(backbone=lpips.backbone, weights=dead, fingerprint="random")
    images, references = pictures("alex")

    gradient = jax.jit(jax.grad(lambda images: nothing(images, references).sum()))(images)

    np.testing.assert_array_equal(gradient, np.zeros_like(images))


@pytest.mark.parametrize("network", list(BACKBONES))
def test_the_smallest_picture_is_compared_and_a_smaller_one_refused(
    networks: dict[str, Lpips], network: str
) -> None:
    lpips = networks[network]
    side = lpips.backbone.smallest_px

    def shape(height: int, width: int) -> jax.Array:
        zeros, ones = jnp.zeros((1, height, width, 3)), jnp.ones((1, height, width, 3))
        return jax.eval_shape(lpips.__call__, zeros, ones)

    assert shape(side, side).shape == (1,)
    smallest = jax.eval_shape(lpips._features, jnp.zeros((1, side, side, 3)))
    assert all(min(layer.shape) > 0 for layer in smallest)
    with pytest.raises(ValueError, match=f"at least {side} px a side, got {side - 1} x {side} px"):
        shape(side - 1, side)
