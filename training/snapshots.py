"""Snapshots of the parameters during a run, and their average, which is what a run exports.

The average is computed from files after training, tensor by tensor: neither the device nor the host
ever holds a second copy of all parameters.

Source: Muse, section 3: checkpoints of every 5000 steps, averaged with decay 0.7.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

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

    def save(self, step: int, params: Mapping[str, np.ndarray]) -> None:
        """Writes a snapshot, whole or not at all, and deletes those too old to matter."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._file(step).with_suffix(".part")
        save_file({name: np.asarray(value) for name, value in params.items()}, part)
        part.replace(self._file(step))
        for old in self.steps[:-KEPT]:
            self._file(old).unlink()

    def discard_after(self, step: int) -> None:
        """Deletes snapshots of later steps, which a resumed run will save again."""
        for later in self.steps:
            if later > step:
                self._file(later).unlink()

    def average(self, decay: float) -> dict[str, np.ndarray]:
        """Returns the average of the snapshots: each takes 1 - decay of what came before it.

        Args:
            decay: Weight of the older snapshots when a newer one joins them.

        Raises:
            FileNotFoundError: no snapshot was saved.
        """
        files: list[Any] = [safe_open(self._file(step), framework="np") for step in self.steps]
        if not files:
            raise FileNotFoundError(f"expected snapshots in {self._folder}, found none")
        averaged: dict[str, np.ndarray] = {}
        for name in files[0].keys():  # noqa: SIM118 - a safetensors file is no mapping
            average = files[0].get_tensor(name)
            for file in files[1:]:
                average = decay * average + (1 - decay) * file.get_tensor(name)
            averaged[name] = average
        return averaged

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"
