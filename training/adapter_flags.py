"""Flags of the commands that train a low-rank adapter."""

from dataclasses import dataclass

from services.runtime.checkpoints.adapters import LowRank


@dataclass(frozen=True, kw_only=True)
class AdapterFlags:
    """Flags of an adapter; by default none is trained.

    Attributes:
        adapter_rank: Trains a low-rank adapter (LoRA) of the checkpoint to start from instead of
            all parameters, into OUT/adapter: its factors have this many columns, such as 8.
        adapter_alpha: The adapter counts adapter_alpha / adapter_rank times; by default 16.
    """

    adapter_rank: int | None = None
    adapter_alpha: float | None = None

    def low_rank(self) -> LowRank | None:
        """Returns the size of the adapter; None without one.

        Raises:
            ValueError: a number is out of range, or alpha has no rank beside it.
        """
        if self.adapter_rank is None:
            if self.adapter_alpha is not None:
                raise ValueError("--adapter-alpha: expected --adapter-rank beside it, got none")
            return None
        if self.adapter_alpha is None:
            return LowRank(rank=self.adapter_rank)
        return LowRank(rank=self.adapter_rank, alpha=self.adapter_alpha)


NO_ADAPTER = AdapterFlags()
