"""The adapters of a pool: their factors side by side, and the scale that a decode gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from services.nn.low_rank import Factors
from services.runtime.checkpoints.adapters import Adapter


@dataclass(frozen=True, kw_only=True)
class AdapterScales:
    """What a decode's weights of its adapters come to, column by column of A.

    Attributes:
        each: The scale of x A by the name of the adapter: alpha / rank at the adapter's own
            columns, 0 at those of all others.
        rank: Columns of A: the sum of the adapters' ranks.
    """

    each: Mapping[str, Float[np.ndarray, " R"]] = field(default_factory=dict)
    rank: int = 0

    def of(self, weights: Mapping[str, float]) -> Float[np.ndarray, " R"]:
        """Returns the scale of x A in a decode.

        Args:
            weights: Weight of each adapter of the decode by its name.

        Raises:
            KeyError: there is no such adapter.
        """
        parts = (np.float32(weight) * self.each[name] for name, weight in weights.items())
        return sum(parts, start=np.zeros(self.rank, np.float32))


NO_ADAPTERS = AdapterScales()


def adapter_scales(adapters: Mapping[str, Adapter]) -> AdapterScales:
    """Returns the scales of adapters, by name, whose factors lie side by side in their order."""
    ranks = np.array([adapter.low_rank.rank for adapter in adapters.values()], int)
    owners = np.repeat(np.arange(len(ranks)), ranks)
    each = {
        name: np.where(owners == index, adapter.low_rank.scale, 0).astype(np.float32)
        for index, (name, adapter) in enumerate(adapters.items())
    }
    return AdapterScales(each=each, rank=len(owners))


def factors_side_by_side(adapters: Mapping[str, Adapter]) -> Factors:
    """Concatenates the factors of adapters along the rank; a matrix that one lacks is zero in it.

    Returns:
        A and B of all adapters by the name of the matrix.
    """
    shapes = {
        name: (a.shape[:-1], b.shape[:-2], b.shape[-1])
        for adapter in adapters.values()
        for name, (a, b) in adapter.factors.items()
    }

    def part(adapter: Adapter, name: str) -> tuple[np.ndarray, np.ndarray]:
        (before, stack, outputs), rank = shapes[name], adapter.low_rank.rank
        absent = np.zeros((*before, rank)), np.zeros((*stack, rank, outputs))
        a, b = adapter.factors.get(name, absent)
        return a.astype(np.float32), b.astype(np.float32)

    factors = {}
    for name in shapes:
        parts_a, parts_b = zip(*(part(each, name) for each in adapters.values()), strict=True)
        factors[name] = np.concatenate(parts_a, axis=-1), np.concatenate(parts_b, axis=-2)
    return factors
