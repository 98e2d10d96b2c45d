"""Snapshots of the parameters during a run, and their average, which is what a run exports.

A snapshot is written tensor by tensor, and so is the average computed from the files after
training: no host ever holds all parameters of a sharded model, no device a second copy of its own.

Source: Muse, section 3: checkpoints of every 5000 steps, averaged with decay 0.7.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array
from safetensors import safe_open

from services.runtime.checkpoints.tensors import LazyTensors, write_tensors
from training.processes import is_first

KEPT = 16  # the oldest of 16 has weight 0.7^15 = 0.5% in the average


class Snapshots:
    """The snapshots of one run, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Names the folder; it is made when the first snapshot is saved."""
        self._folder = folder

    @property
    def steps(self) -> list[int]:
        """Steps at which snapshots were saved, the oldest first."""
        return sorted(
            int(file.stem.removeprefix("step-")) for file in self._folder.glob("*.safetensors")
        )

    def save(self, step: int, params: Mapping[str, Array]) -> None:
        """Writes a snapshot, whole or not at all, and deletes those too old to matter.

        All processes of a run gather each tensor, and the first one writes it.
        """
        tensors = _gathered(params)
        if not is_first():
            for name in tensors:
                tensors[name]
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._file(step).with_suffix(".part")
        write_tensors(part, tensors)
        part.replace(self._file(step))
        for old in self.steps[:-KEPT]:
            self._file(old).unlink()

    def discard_after(self, step: int, every: int) -> None:
        """Deletes what a run that goes on at a step will save again, or would not have saved.

        Args:
            step: Where the run goes on.
            every: Steps between snapshots; only the end of an earlier session lies between them.
        """
        for saved in self.steps:
            if is_first() and (saved > step or saved % every):
                self._file(saved).unlink()

    def average(self, decay: float, *, every: int = 1) -> LazyTensors:
        """Returns the average of the snapshots: each takes 1 - decay of what came before it.

        Args:
            decay: Weight of the older snapshots when a newer one joins them.
            every: Takes snapshots of multiples of this, and the last one.

        Raises:
            FileNotFoundError: no snapshot was saved.
        """
        steps = self.averaged_steps(every)
        if not steps:
            raise FileNotFoundError(f"expected snapshots in {self._folder}, found none")
        files: list[Any] = [safe_open(self._file(step), framework="np") for step in steps]

        def make(name: str) -> np.ndarray:
            average: np.ndarray = files[0].get_tensor(name)
            for file in files[1:]:
                average = decay * average + (1 - decay) * file.get_tensor(name)
            return average

        shapes = {
            name: (tuple(files[0].get_slice(name).get_shape()), np.dtype(np.float32))
            for name in files[0].keys()  # noqa: SIM118 - a safetensors file is no mapping
        }
        return LazyTensors(shapes, make)

    def averaged_steps(self, every: int = 1) -> list[int]:
        """Returns the steps of the snapshots that `average` takes."""
        return [step for step in self.steps if step % every == 0 or step == self.steps[-1]]

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"


def _gathered(params: Mapping[str, Array]) -> LazyTensors:
    """Returns parameters whole, each when it is asked for, by all processes in the same order."""

    def make(name: str) -> np.ndarray:
        array = params[name]
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            mesh = array.sharding.mesh  # type: ignore[attr-defined] # of `training.mesh`
            whole = NamedSharding(mesh, PartitionSpec())
            array = jax.jit(lambda shards: shards, out_shardings=whole)(array)
        return np.asarray(array)

    return LazyTensors({name: (array.shape, array.dtype) for name, array in params.items()}, make)
