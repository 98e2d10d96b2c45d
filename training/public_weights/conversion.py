"""Conversion of a VQGAN's tensors from another library's layout to parameters of `Vqgan`."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.integrity import check_finite
from services.tokenizer.model import CODEBOOK
from services.tokenizer.vqgan import SHORTEST_CODE, Vqgan
from services.tokenizer.vqgan_config import VqganConfig
from training.public_weights.naming import Naming

Tensors = Mapping[str, np.ndarray]
LISTED = 10  # names of tensors in a message


def check_names(stored: Collection[str], expected: Collection[str], source: Path) -> None:
    """Checks that exactly the expected tensors are there.

    Raises:
        CheckpointMismatch: some are missing or unknown.
    """
    missing, unknown = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    if missing or unknown:
        raise CheckpointMismatch(
            f"{source} holds another network than the layout says: of {len(expected)} tensors "
            f"{listed(missing)} missing, and {listed(unknown)} unknown; give the --layout that "
            "it was written in"
        )


def listed(names: list[str]) -> str:
    """Returns how many names there are and the first ten, as the subject of a sentence."""
    if not names:
        return "none is"
    shown = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    return f"{len(names)} ({shown}) {'is' if len(names) == 1 else 'are'}"


def converted(
    tensors: Tensors, config: VqganConfig, naming: Naming, source: Path
) -> dict[str, np.ndarray]:
    """Returns the parameters of a `Vqgan` in float32, by dotted path.

    Args:
        tensors: Of the layout; exactly those of the network.
        config: Its configuration.
        naming: Names of the layout.
        source: Where they were read from, for messages.

    Raises:
        CheckpointMismatch: a tensor is missing, unknown, or of another shape.
        CheckpointDamaged: a value is infinite or NaN.
    """
    flat = nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: Vqgan(config, rngs=nnx.Rngs(0)))))
    shapes = {".".join(map(str, path)): tuple(leaf.shape) for path, leaf in flat}
    names = {ours: naming.name_of(ours, len(config.channels)) for ours in shapes}
    check_names(tensors.keys(), names.values(), source)
    check_finite(source, tensors)
    parameters = {
        ours: _turned(tensors[name], shapes[ours], f"{source}: the tensor {name}")
        for ours, name in names.items()
    }
    if config.l2_normalised_codes:
        codes = parameters[CODEBOOK]
        lengths = np.linalg.norm(codes, axis=1, keepdims=True)
        parameters[CODEBOOK] = codes / np.maximum(lengths, SHORTEST_CODE)
    return parameters


def _turned(tensor: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Returns a tensor in the order of axes that Flax has: kernels as [height width in out]."""
    kernel = len(shape) == 4
    expected = (shape[3], shape[2], *shape[:2]) if kernel else shape
    if kernel and tensor.ndim == 2:  # a linear layer, which is a 1x1 convolution
        tensor = tensor[:, :, None, None]
    if tensor.shape != expected:
        raise CheckpointMismatch(
            f"{what} has the shape {tensor.shape}, where a network of this configuration has "
            f"{expected}: the files are of two networks, fetch them again"
        )
    return (tensor.transpose(2, 3, 1, 0) if kernel else tensor).astype(np.float32)
