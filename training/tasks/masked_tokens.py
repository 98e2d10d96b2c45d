"""The task of both transformers: their step on examples of frozen stages, pictures and export."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Int
from PIL import Image

from services.base.families import family_of
from services.masked.defaults import FILE_NAME as SAMPLING_FILE
from services.pictures.sheets import contact_sheet
from services.runtime.checkpoints.serialization import round_to_bfloat16, save_checkpoint
from services.superres.config import SuperresConfig
from training.optimizers import Parameters
from training.state import TrainState
from training.tasks.frozen import Examples, FrozenStages, FrozenTokenizer
from training.tasks.masked_step import MaskedTokensStep


class MaskedTokensTask:
    """Trains the base or the super-resolution transformer."""

    def __init__(
        self,
        step: MaskedTokensStep,
        frozen: FrozenStages,
        examples: Callable[[int], Examples],
        *,
        started_from: Path | None = None,
    ) -> None:
        """Prepares the task.

        Args:
            step: What is computed.
            frozen: The text encoder and tokenizers it is trained for.
            examples: Gives this process's examples of a step, always the same ones.
            started_from: Checkpoint that the parameters are of, whose default sampling parameters
                the exported one has too.
        """
        self.config, self.recipe, self.seed = step.config, step.recipe, step.seed
        self.given = step.given
        self._step, self._frozen, self._examples = step, frozen, examples
        sampling = None if started_from is None else started_from / SAMPLING_FILE
        self._sampling = [sampling] if sampling is not None and sampling.is_file() else []

    @property
    def name(self) -> str:
        """Of the stage: "base" or "superres"."""
        return "superres" if isinstance(self.config, SuperresConfig) else "base"

    def initial_state(self, given: Mapping[str, Array]) -> TrainState:
        """Returns the parameters before the first step."""
        return self._step.initial_state(given)

    def batch(self, step: int) -> Examples:
        """Returns the examples of a step."""
        return self._examples(step)

    def phase(self, step: int) -> str:
        """Returns the only phase there is."""
        return "training"

    def train_step(
        self, state: TrainState, batch: Examples, step: Int[Array, ""], phase: str
    ) -> tuple[TrainState, dict[str, Array]]:
        """Takes one step."""
        return self._step.train_step(state, batch, step, phase)

    def picture(self, state: TrainState, batch: Examples) -> Image.Image | None:
        """Draws images, what is left of them with half their tokens hidden, and the best guess."""
        targets, shown, guessed = map(np.asarray, self._step.guess(state.params, batch))
        tokenizer = self._tokenizer()
        rows = (targets, np.where(shown, targets, 0), guessed)
        pictures = [picture for row in rows for picture in tokenizer.pictures(row)]
        return contact_sheet(pictures, columns=len(targets))

    def _tokenizer(self) -> FrozenTokenizer:
        return self._frozen.high or self._frozen.low

    def params(self, state: TrainState) -> Parameters:
        """Returns the transformer's parameters, also those that never learn."""
        return self._step.fixed | state.params

    @property
    def shape(self) -> Mapping[str, Any]:
        """Returns what a resumed run must share with the run it resumes."""
        return {
            "config": asdict(self.config),
            "frozen stages": dict(self._frozen.fingerprint()),
            "seed": self.seed,
        }

    def export(
        self, params: Mapping[str, np.ndarray], folder: Path, record: Mapping[str, Any]
    ) -> None:
        """Writes the transformer's checkpoint, with the names of what it was trained for."""
        save_checkpoint(
            folder,
            stage=self.name,
            family=family_of(self.config),
            config=self.config,
            parameters=round_to_bfloat16(params),
            fingerprint=self._frozen.fingerprint(),
            record=self.full_record(record),
            files=self._sampling,
        )

    def full_record(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a record of the run with its recipe, and how many captions were cut."""
        text_encoder = self._frozen.text_encoder
        captions = {"read": text_encoder.captions_read, "cut": text_encoder.captions_cut}
        return {**record, "recipe": asdict(self.recipe), "captions_of_last_session": captions}
