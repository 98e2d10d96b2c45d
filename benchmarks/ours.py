"""Our base transformer with random weights, driven as the server drives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from services.base.families import AnyBaseConfig, build_base
from services.decoding.adapters import adapter_scales, factors_side_by_side
from services.decoding.pool import DecodePool, DecodeRequest, Progress
from services.decoding.serving import default_serving_config
from services.decoding.state import Sampling, fresh_row
from services.nn.low_rank import with_adapters
from services.nn.parameters import parameters_of, with_parameters
from services.nn.precision import build_in
from services.runtime.checkpoints.adapters import Adapter
from services.runtime.checkpoints.precision import Precision
from services.runtime.scheduling.scheduler import SlotScheduler
from services.runtime.wire.timing import Timed

NO_ADAPTERS: Mapping[str, Adapter] = {}
NO_WEIGHTS: Mapping[str, float] = {}
WORDS_SHARE = 0.25  # of the text's positions; the rest is padding


@dataclass(frozen=True)
class Text:
    """A prompt's embedding.

    Attributes:
        embedding: [T Dt], zero where there is padding.
        mask: [T], True where there is text.
    """

    embedding: np.ndarray
    mask: np.ndarray


def random_text(config: AnyBaseConfig) -> Text:
    """Returns an embedding of random numbers, a quarter of it text."""
    mask = np.arange(config.text_length) < WORDS_SHARE * config.text_length
    shape = config.text_length, config.text_hidden
    numbers = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return Text(numbers * mask[:, None], mask)


class OurDecode:
    """The base's pool behind the servers' scheduler."""

    def __init__(
        self,
        config: AnyBaseConfig,
        adapters: Mapping[str, Adapter] = NO_ADAPTERS,
        precision: Precision = "float32",
    ) -> None:
        """Builds it with random weights, and compiles everything.

        Args:
            config: Its shape.
            adapters: By name.
            precision: Of the factors of products.
        """
        self.config, serving = config, default_serving_config()
        self.parameters = _random_parameters(config)
        dtype = jnp.dtype(precision)
        self.model = with_parameters(
            lambda: build_in(dtype, partial(build_base, config)), self.parameters, dtype=dtype
        )
        inputs = (
            jax.ShapeDtypeStruct((1, config.text_length, config.text_hidden), np.float32),
            jax.ShapeDtypeStruct((1, config.text_length), np.bool_),
        )
        pool = DecodePool(
            with_adapters(self.model, factors_side_by_side(adapters)),
            inputs=inputs,
            tokens=config.tokens,
            mask_id=config.vocabulary,
            slots=serving.slots,
            adapters=adapter_scales(adapters),
        )
        pool.warm_up()
        self._scheduler: SlotScheduler[DecodeRequest, Progress] = SlotScheduler(pool, max_queued=1)

    def image(
        self, text: Text, sampling: Sampling, adapters: Mapping[str, float] = NO_WEIGHTS
    ) -> np.ndarray:
        """Decodes an image's tokens.

        Args:
            text: The prompt's embedding.
            sampling: How to decode.
            adapters: Weight of each adapter to apply, by name.

        Raises:
            RuntimeError: the decode failed; the log says why.
        """
        request = DecodeRequest(
            inputs=(text.embedding, text.mask),
            negative_inputs=None,
            row=fresh_row(self.config.tokens, sampling),
            adapters=adapters,
        )
        events: list[Any] = []
        self._scheduler.submit(request, events.append, stream=False)
        while self._scheduler.tick():
            pass
        if not isinstance(events[-1], Timed):
            raise RuntimeError(f"the decode ended with {events[-1]}")
        return events[-1].result.tokens


def _random_parameters(config: AnyBaseConfig) -> dict[str, np.ndarray]:
    """Returns fresh parameters, spread a little so that no scale is 1 and no bias 0."""
    fresh = parameters_of(build_base(config, jnp.float32))
    random = np.random.default_rng(2)
    return {
        name: np.asarray(value) + 0.02 * random.standard_normal(value.shape, dtype=np.float32)
        for name, value in fresh.items()
    }
