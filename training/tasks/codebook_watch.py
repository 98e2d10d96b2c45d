"""A watch over a run's codebook: a collapse stops the run."""

import math
from collections.abc import Mapping
from typing import Any


class CodebookCollapse(ArithmeticError):
    """Too few codes of a codebook have been in use for too long; the message says what to do."""


class CodebookWatch:
    """Reads the reported `usage` of a codebook.

    At the default decay a code counts as used for 100 steps, more than lie between two reports, so
    a rise between reports is seen at the next one.
    """

    def __init__(self, *, least_usage: float = 0.05, patience: int = 1000) -> None:
        """Stops a run of less usage in every report of `patience` steps in a row."""
        self._least_usage, self._patience = least_usage, patience
        self._collapsed_since: float = math.inf

    def healthy(self, step: int, metrics: Mapping[str, Any], last_saved: int) -> bool:
        """Returns whether enough codes are in use, so that the state is worth saving.

        Args:
            step: Number of steps taken.
            metrics: What the run reports there.
            last_saved: Step of the newest saved state; 0 without one.

        Raises:
            CodebookCollapse: for too long too few codes have been in use.
        """
        usage = metrics["usage"]
        if usage >= self._least_usage:
            self._collapsed_since = math.inf
            return True
        self._collapsed_since = min(self._collapsed_since, step)
        steps = step - self._collapsed_since
        if steps < self._patience:
            return False
        resume = (
            "no state was saved before: start anew"
            if last_saved == 0
            else f"the last good saved state is that of step {last_saved}: go on from it by the "
            "same command, or start anew in another --out,"
        )
        raise CodebookCollapse(
            f"the codebook has collapsed: {usage:.2%} of its codes are in use at step {step}, and "
            f"less than {self._least_usage:.0%} were for {steps:g} steps; {resume} with a lower "
            "--learning-rate, a higher --losses.revive-below or --losses.entropy 0.1"
        )
