"""The adapters of a pool, concatenated along the rank, and the scale that a decode gives them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from services.nn.low_rank import Factors
from services.runtime.checkpoints.adapters import Adapter


@dataclass(frozen=True, kw_only=True)
class LoadedAdapters:
    """Adapters of one checkpoint, as a pool takes them.

    Attributes:
        factors: A and B of all adapters by the name of the matrix, of one rank: the sum of theirs.
        scales: The scale of x A by the name of the adapter, as long as that rank: alpha / rank at
            the adapter's own columns, 0 at all others.
        rank: Sum of the adapters' ranks.
    """

    factors: Factors = field(default_factory=dict)
    scales: Mapping[str, Float[np.ndarray, " R"]] = field(default_factory=dict)
    rank: int = 0

    def scale(self, weights: Mapping[str, float]) -> Float[np.ndarray, " R"]:
        """Returns the scale of x A in a decode.

        Args:
            weights: Weight of each adapter of the decode by its name.

        Raises:
            KeyError: there is no such adapter.
        """
        parts = (np.float32(weight) * self.scales[name] for name, weight in weights.items())
        return sum(parts, start=np.zeros(self.rank, np.float32))


NO_ADAPTERS = LoadedAdapters()


def loaded_adapters(adapters: Mapping[str, Adapter]) -> LoadedAdapters:
    """Concatenates adapters, by name, of one checkpoint; a matrix that one lacks is zero in it."""
    names = sorted({name for adapter in adapters.values() for name in adapter.factors})
    ranks = np.array([adapter.low_rank.rank for adapter in adapters.values()], int)
    owners = np.repeat(np.arange(len(ranks)), ranks)
    return LoadedAdapters(
        factors={name: _concatenated(name, adapters.values()) for name in names},
        scales={
            name: np.where(owners == index, adapter.low_rank.scale, 0).astype(np.float32)
            for index, (name, adapter) in enumerate(adapters.items())
        },
        rank=len(owners),
    )


def _concatenated(
    name: str, adapters: Iterable[Adapter]
) -> tuple[Float[np.ndarray, "*L D R"], Float[np.ndarray, "*L R M"]]:
    """Returns A and B of a matrix of all adapters."""
    known = next(adapter.factors[name] for adapter in adapters if name in adapter.factors)
    (*stack, inputs, _), outputs = known[0].shape, known[1].shape[-1]

    def of(adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
        rank = adapter.low_rank.rank
        absent = np.zeros((*stack, inputs, rank)), np.zeros((*stack, rank, outputs))
        a, b = adapter.factors.get(name, absent)
        return a.astype(np.float32), b.astype(np.float32)

    parts_a, parts_b = zip(*map(of, adapters), strict=True)
    return np.concatenate(parts_a, axis=-1), np.concatenate(parts_b, axis=-2)
