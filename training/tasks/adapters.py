"""The task of a low-rank adapter for a trained base or super-resolution transformer.

Only the adapter learns. The transformer's own parameters are part of the state, so that they are
divided over the mesh as in any run, but they have no gradients and no optimizer.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int
from PIL import Image

from services.base.families import AnyBaseConfig
from services.runtime.checkpoints.adapters import LowRank, save_adapter
from services.runtime.checkpoints.serialization import Checkpoint, round_to_bfloat16
from services.superres.config import SuperresConfig
from training.low_rank import is_factor, stored_name
from training.mesh import Execution
from training.optimizers import Parameters, Recipe
from training.state import TrainState, apply_gradients, new_train_state
from training.tasks.frozen import Examples, FrozenStages
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masked_tokens import MaskedTokensTask


class AdapterState(NamedTuple):
    """What an adapter's run carries from step to step.

    Attributes:
        adapter: The factors and their optimizer.
        frozen: The transformer's own parameters, which no step changes.
    """

    adapter: TrainState
    frozen: Parameters


class AdapterTask:
    """Trains an adapter of one checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint[AnyBaseConfig | SuperresConfig],
        low_rank: LowRank,
        recipe: Recipe,
        execution: Execution,
        frozen: FrozenStages,
        examples: Callable[[int], Examples],
        *,
        seed: int = 0,
    ) -> None:
        """Prepares the task.

        Args:
            checkpoint: Of the transformer that is adapted, whole.
            low_rank: Size and weight of the adapter.
            recipe: Its optimizer.
            execution: Devices, parts of a batch, remat.
            frozen: The text encoder and tokenizers that the checkpoint was trained for.
            examples: Gives this process's examples of a step, always the same ones.
            seed: Of each A, the masks and which captions are dropped.

        Raises:
            ValueError: the rank is more than the transformer's width.
        """
        config = checkpoint.config
        if low_rank.rank > config.hidden:
            raise ValueError(
                f"an adapter's rank must be at most the transformer's width, {config.hidden}, got "
                f"{low_rank.rank}"
            )
        self._step = MaskedTokensStep(
            config,
            recipe,
            execution,
            seed=seed,
            initial=checkpoint.parameters,
            low_rank=low_rank,
        )
        self._transformer = MaskedTokensTask(self._step, frozen, examples)
        self._low_rank, self._checkpoint = low_rank, checkpoint.digest
        self.recipe, self.given = recipe, self._step.given

    @property
    def name(self) -> str:
        """Of the progress bar: "base adapter" or "superres adapter"."""
        return f"{self._transformer.name} adapter"

    def initial_state(self, given: Mapping[str, Array]) -> AdapterState:
        """Returns the checkpoint's parameters and an adapter that does not change them yet."""
        parameters = self._step.initial_parameters(given)
        factors = {name: value for name, value in parameters.items() if is_factor(name)}
        return AdapterState(
            adapter=new_train_state(factors, self._step.optimizer),
            frozen={name: value for name, value in parameters.items() if name not in factors},
        )

    def batch(self, step: int) -> Examples:
        """Returns the examples of a step."""
        return self._transformer.batch(step)

    def phase(self, step: int) -> str:
        """Returns the only phase there is."""
        return self._transformer.phase(step)

    def train_step(
        self, state: AdapterState, batch: Examples, step: Int[Array, ""], phase: str
    ) -> tuple[AdapterState, dict[str, Array]]:
        """Takes one step of the adapter."""
        learned = state.adapter.params
        gradients, metrics = self._step.gradients(learned, state.frozen, batch, step)
        adapter = apply_gradients(state.adapter, gradients, self._step.optimizer)
        return AdapterState(adapter, state.frozen), metrics

    def picture(self, state: AdapterState, batch: Examples) -> Image.Image | None:
        """Draws what the adapted transformer guesses, as `MaskedTokensTask` does."""
        adapted = state.adapter._replace(params=state.frozen | state.adapter.params)
        return self._transformer.picture(adapted, batch)

    def params(self, state: AdapterState) -> Parameters:
        """Returns the adapter's factors by their stored names."""
        return {stored_name(name): value for name, value in state.adapter.params.items()}

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes."""
        adapter = {**asdict(self._low_rank), "checkpoint": self._checkpoint}
        return {**self._transformer.shape, "adapter": adapter}

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the adapter, with the digest of the checkpoint that it belongs to."""
        save_adapter(
            folder,
            stage=self._transformer.name,
            low_rank=self._low_rank,
            checkpoint=self._checkpoint,
            parameters=round_to_bfloat16(params),
            record=self._transformer.full_record(record),
        )
