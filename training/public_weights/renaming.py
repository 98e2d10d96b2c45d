"""Tensors of another library's network, renamed, turned and stacked as parameters of ours."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from services.runtime.checkpoints.errors import CheckpointMismatch
from services.runtime.checkpoints.integrity import check_finite
from training.public_weights.conversion import Tensors, listed

Turn = Callable[[np.ndarray], np.ndarray]
LAYER = "{layer}"  # in the name of a tensor: the number of its layer


def as_matrix(tensor: np.ndarray) -> np.ndarray:
    """Returns a matrix that PyTorch stores [out in], or a 1 x 1 convolution, as [in out]."""
    return tensor.reshape(tensor.shape[:2]).T


def as_kernel(tensor: np.ndarray) -> np.ndarray:
    """Returns a convolution that PyTorch stores [out in h w] as [h w in out]."""
    return tensor.transpose(2, 3, 1, 0)


def renamed(
    tensors: Tensors,
    names: Mapping[str, str],
    build: Callable[[], nnx.Module],
    source: Path,
    *,
    turns: Mapping[str, Turn],
) -> dict[str, np.ndarray]:
    """Returns parameters of a network in float32, by dotted path.

    Args:
        tensors: Exactly those of the other library's network.
        names: By the path of each parameter the names of the tensors that it is made of. They are
            concatenated along their first axis; those with {layer} in them are stacked.
        build: Builds our network; only its shapes are used.
        source: Where the tensors were read from, for messages.
        turns: Brings tensors into our order of axes, by the end of the parameter's path; by default
            a kernel is turned as `as_matrix` does and others are as they should be.

    Raises:
        CheckpointMismatch: a tensor is missing, unknown, or of another shape.
        CheckpointDamaged: a value is infinite or NaN.
    """
    state = nnx.to_flat_state(nnx.state(nnx.eval_shape(build)))
    shapes = {".".join(map(str, path)): tuple(leaf.shape) for path, leaf in state}
    sources = {ours: _by_layer(names[ours], shapes[ours]) for ours in names}
    expected = {name for layers in sources.values() for layer in layers for name in layer}
    missing, unknown = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or unknown:
        raise CheckpointMismatch(
            f"{source} holds another network than the config.json beside it describes: of "
            f"{len(expected)} tensors {listed(missing)} missing, and {listed(unknown)} unknown; "
            "fetch both files again"
        )
    check_finite(source, tensors)
    parameters = {}
    for ours, layers in sources.items():
        turn = next((turns[end] for end in turns if ours.endswith(end)), _default_turn(ours))
        stack = LAYER in names[ours]
        shape = shapes[ours][1:] if stack else shapes[ours]
        each = [_made_of(tensors, layer, turn, shape, source) for layer in layers]
        parameters[ours] = np.stack(each) if stack else each[0]
    return parameters


def _default_turn(ours: str) -> Turn:
    return as_matrix if ours.endswith(".kernel") else np.asarray


def _by_layer(names: str, shape: tuple[int, ...]) -> list[list[str]]:
    """Returns the names of the tensors of each layer; those of no stack are of one layer."""
    layers = shape[0] if LAYER in names else 1
    return [names.replace(LAYER, str(layer)).split() for layer in range(layers)]


def _made_of(
    tensors: Tensors, names: list[str], turn: Turn, shape: tuple[int, ...], source: Path
) -> np.ndarray:
    found = ", ".join(f"{name} {tensors[name].shape}" for name in names)
    mismatch = CheckpointMismatch(
        f"{source}: {found} {'has' if len(names) == 1 else 'have'} another shape than in the "
        f"network that the config.json beside it describes, where {shape} come of it: the files "
        "are of two networks, fetch them again"
    )
    try:
        made = turn(np.concatenate([tensors[name] for name in names]))
    except ValueError as error:
        raise mismatch from error
    if made.shape != shape:
        raise mismatch
    return made.astype(np.float32)
