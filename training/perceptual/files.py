"""LPIPS networks as safetensors files: writing, reading and checking them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from services.runtime.checkpoints.serialization import parameters_fingerprint
from training.perceptual.backbones import BACKBONES, Backbone
from training.perceptual.distance import Lpips
from training.perceptual.errors import LpipsError

_CONVERT = "make one with `python -m training.perceptual convert`"


def write_lpips(
    file: Path,
    backbone: Backbone,
    weights: Mapping[str, np.ndarray],
    provenance: Mapping[str, str],
) -> None:
    """Writes a network.

    Args:
        file: Name of the new file.
        backbone: Which network.
        weights: As `Lpips.weights`.
        provenance: Source, version and licence of the weights.

    Raises:
        LpipsError: the weights are not those of the backbone.
    """
    check_weights(backbone, weights, file.name)
    save_file(
        {name: np.ascontiguousarray(array) for name, array in weights.items()},
        file,
        metadata={"network": backbone.name, **provenance},
    )


def read_lpips(file: Path) -> Lpips:
    """Reads a network that `write_lpips` wrote.

    Raises:
        LpipsError: the file is missing, unreadable, or holds something other than an LPIPS network.
    """
    try:
        weights = load_file(file)
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
    except OSError as error:
        raise LpipsError(
            f"expected a converted LPIPS network in {file}, got {error}: {_CONVERT}"
        ) from error
    except SafetensorError as error:
        raise LpipsError(
            f"{file} is no safetensors file of an LPIPS network ({error}): {_CONVERT}"
        ) from error
    network = metadata.get("network")
    if network not in BACKBONES:
        raise LpipsError(
            f"{file}: expected metadata that names the network, one of "
            f"{', '.join(BACKBONES)}, got {network!r}: {_CONVERT}"
        )
    backbone = BACKBONES[network]
    check_weights(backbone, weights, str(file))
    fingerprint = parameters_fingerprint(f"lpips-{network}", weights)
    return Lpips(backbone=backbone, weights=weights, fingerprint=fingerprint)


def check_weights(backbone: Backbone, weights: Mapping[str, np.ndarray], name: str) -> None:
    """Checks that weights fit a backbone and each other.

    Args:
        backbone: Which network.
        weights: As `Lpips.weights`.
        name: Name of their file, for error messages.

    Raises:
        LpipsError: an array is missing, unknown, of another shape or type, or not finite, or a
            head has negative weights.
    """
    expected = {f"heads.{index}" for index in range(len(backbone.compared))}
    for index in range(backbone.convolutions):
        expected |= {f"convolutions.{index}.{part}" for part in ("kernel", "bias")}
    missing, unknown = sorted(expected - weights.keys()), sorted(weights.keys() - expected)
    if missing or unknown:
        raise LpipsError(
            f"{name} is no LPIPS network {backbone.name}: missing {missing}, unknown {unknown}"
        )
    channels, heads = 3, 0
    for index in range(backbone.convolutions):
        kernel = weights[f"convolutions.{index}.kernel"]
        side, outputs = (kernel.shape[0], kernel.shape[-1]) if kernel.ndim == 4 else (1, 1)
        shapes = {
            f"convolutions.{index}.kernel": (side, side, channels, outputs),
            f"convolutions.{index}.bias": (outputs,),
        }
        if index in backbone.compared:
            shapes[f"heads.{heads}"] = (outputs,)
            heads += 1
        for tensor, shape in shapes.items():
            array = weights[tensor]
            if array.shape != shape or array.dtype != np.float32 or side % 2 == 0:
                raise LpipsError(
                    f"{name}: expected {tensor} of shape {shape} in float32, with an odd kernel, "
                    f"got {array.shape} in {array.dtype}"
                )
            if not np.isfinite(array).all() or (tensor.startswith("heads.") and array.min() < 0):
                raise LpipsError(
                    f"{name}: expected finite values in {tensor}, none below 0 in heads; "
                    f"got {array.min()} to {array.max()}"
                )
        channels = outputs
