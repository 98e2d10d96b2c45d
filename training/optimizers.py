"""The optimizers of the paper, and the recipes that use them."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from services.nn.bf16_matmul import contract, transposed
from services.nn.low_rank import KERNEL
from services.nn.stacks import STACKS

Parameters = dict[str, Array]  # by dotted name


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast a stage learns.

    Attributes:
        steps: Optimizer steps in all.
        batch_size: Examples a step.
        learning_rate: Its peak.
        warm_up_steps: Steps of linear growth to the peak; a cosine to zero follows.
        first_decay: Of the running mean of gradients (beta 1).
        second_decay: Of the running mean of squared gradients (beta 2).
        weight_decay: Decoupled; a step shrinks weights by learning_rate * weight_decay.
        average_every: Steps between the snapshots that the exported weights average.
        average_decay: Weight of the old average when a snapshot joins it.
        distinct_examples: After so many examples a transformer sees the same pictures and
            captions again, masked otherwise, and nothing is tokenised twice; None for ever new
            ones.
        low_corruption: Share of low-resolution tokens that superres sees replaced by random ones,
            so that it learns to live with the base's mistakes; 0 to below 1.
        precision: Of the factors of a transformer's matrix products; parameters and sums are
            float32.
        optimizer: Of a transformer: the paper's, or one that learns more from each example.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warm_up_steps: int
    first_decay: float
    second_decay: float
    weight_decay: float
    average_every: int = 5000
    average_decay: float = 0.7
    distinct_examples: int | None = None
    low_corruption: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Literal["adafactor", "muon"] = "adafactor"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(
                f"learning_rate must be more than 0 and at most 1, got {self.learning_rate:g}"
            )
        if not 0 < self.warm_up_steps < self.steps:
            raise ValueError(
                f"warm_up_steps must lie between 0 and steps {self.steps}, got {self.warm_up_steps}"
            )
        if self.distinct_examples is not None and self.distinct_examples < 1:
            raise ValueError(f"distinct_examples must be at least 1, got {self.distinct_examples}")
        for name in ("first_decay", "second_decay", "average_decay", "low_corruption"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    def schedule(self) -> optax.Schedule:
        """Returns the learning rate at each step: linear warm-up, then a cosine to zero."""
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warm_up_steps, self.steps
        )


def optimizer_metrics(
    recipe: Recipe, gradients: Parameters, step: Int[Array, ""]
) -> dict[str, Array]:
    """Returns the learning rate of a step and the norm of all its gradients, to report."""
    return {
        "learning_rate": jnp.asarray(recipe.schedule()(step)),
        "gradient_norm": optax.tree.norm(gradients),
    }


def adam(recipe: Recipe) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, for the VQGANs and the text encoder."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            recipe.schedule(),
            b1=recipe.first_decay,
            b2=recipe.second_decay,
            weight_decay=recipe.weight_decay,
        ),
    )


def transformer_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Returns the optimizer of a transformer that a recipe names."""
    return muon(recipe) if recipe.optimizer == "muon" else adafactor(recipe)


def adafactor(recipe: Recipe) -> optax.GradientTransformation:
    """Adafactor with momentum and a weight decay that the learning rate scales.

    `optax.adafactor` subtracts its decay after the learning rate was applied: 0.045 would shrink
    the weights by 4.5% a step. Here the decay is scaled too, so a step at 1e-4 shrinks them by
    4.5e-6 of themselves. The second moment is a plain mean until it is as long as beta 2 says.
    Updates are clipped matrix by matrix, each layer of a stack by itself.

    Source: Muse, Table 4; Shazeer and Stern 2018, "Adafactor".
    """

    def decay_at(step: jnp.ndarray, longest: float) -> jnp.ndarray:
        count = jnp.asarray(step, jnp.float32) + 1.0
        return jnp.minimum(1.0 - 1.0 / count, longest)

    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=recipe.second_decay, decay_rate_fn=decay_at),
        clip_by_matrix_rms(1.0),
        optax.ema(recipe.first_decay, debias=False),
        optax.add_decayed_weights(recipe.weight_decay),
        optax.scale_by_learning_rate(recipe.schedule()),
    )


def muon(recipe: Recipe) -> optax.GradientTransformation:
    """Muon for the matrices of the layers, each by itself; Adam for embeddings, head and scales.

    Its step makes the momentum of a matrix nearly orthogonal, so that rare directions move as far
    as frequent ones; a root mean square of 0.2 makes the rates of both alike. It is not the paper's
    optimizer: docs/training.md has what it gained on the demo.

    Source: Jordan 2024, "Muon"; Liu et al. 2025, "Muon is Scalable for LLM Training", section 2.2.
    """

    def labels(parameters: Parameters) -> dict[str, str]:
        return {
            name: "muon" if name.split(".")[0] in STACKS and name.endswith(KERNEL) else "adam"
            for name in parameters
        }

    of_matrices = optax.chain(
        optax.trace(recipe.first_decay, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map(_orthogonal_layers, updates)),
        optax.add_decayed_weights(recipe.weight_decay),
        optax.scale_by_learning_rate(recipe.schedule()),
    )
    of_others = optax.adamw(
        recipe.schedule(),
        b1=recipe.first_decay,
        b2=recipe.second_decay,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    return optax.partition({"muon": of_matrices, "adam": of_others}, labels)


def _orthogonal_layers(layers: Float[Array, "L A B"]) -> Float[Array, "L A B"]:
    """Makes each layer's matrix nearly orthogonal, with a root mean square of 0.2."""
    scale = 0.2 * max(layers.shape[1:]) ** 0.5
    return scale * lax.map(orthogonal, layers)


def orthogonal(matrix: Float[Array, "A B"]) -> Float[Array, "A B"]:
    """Brings all but the smallest singular values of a matrix to between 0.7 and 1.2.

    Five Newton-Schulz steps, of bfloat16 factors as Jordan's. `optax.contrib.muon` computes them in
    the gradients' float32, which takes longer.

    Source: Jordan 2024, "Muon".
    """

    def step(_: int, wide: Float[Array, "A B"]) -> Float[Array, "A B"]:
        gram = contract(wide, wide, right_axis=1)
        change = -4.7750 * gram + 2.0315 * contract(gram, gram, right_axis=0)
        return 3.4445 * wide + contract(change, wide, right_axis=0)

    is_wide = matrix.shape[0] <= matrix.shape[1]
    start = matrix / (jnp.linalg.norm(matrix) + 1e-8)
    wide = lax.fori_loop(0, 5, step, start if is_wide else transposed(start))
    return wide if is_wide else transposed(wide)


def clip_by_matrix_rms(threshold: float) -> optax.GradientTransformation:
    """Scales each matrix's update down until its root mean square is at most `threshold`.

    `optax.clip_by_block_rms` takes a whole array: of a stack of layers one layer with a large
    update would then shrink those of all others.

    Args:
        threshold: The largest root mean square; d of the paper.

    Source: Shazeer and Stern 2018, "Adafactor", section 6.
    """

    def clip(path: tuple[jax.tree_util.DictKey], update: Array) -> Array:
        stacked = path[0].key.split(".")[0] in STACKS
        axes = tuple(range(int(stacked), update.ndim))
        rms = jnp.sqrt(jnp.mean(update**2, axis=axes, keepdims=True))
        return update / jnp.maximum(1.0, rms / threshold)

    def update(
        updates: Parameters, state: optax.EmptyState, _: Parameters | None = None
    ) -> tuple[Parameters, optax.EmptyState]:
        return jax.tree_util.tree_map_with_path(clip, updates), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


TOKENIZER_PAPER = Recipe(  # Muse, Table 5
    steps=1_000_000,
    batch_size=256,
    learning_rate=1e-4,
    warm_up_steps=10_000,
    first_decay=0.9,
    second_decay=0.99,
    weight_decay=1e-4,
)
BASE_PAPER = Recipe(  # Muse, Table 4; 1 M steps in its text
    steps=1_500_000,
    batch_size=512,
    learning_rate=1e-4,
    warm_up_steps=5000,
    first_decay=0.9,
    second_decay=0.96,
    weight_decay=0.045,
    precision="bfloat16",
)
SUPERRES_PAPER = Recipe(  # Muse, Table 6
    steps=1_000_000,
    batch_size=512,
    learning_rate=1e-4,
    warm_up_steps=5000,
    first_decay=0.9,
    second_decay=0.96,
    weight_decay=0.045,
    precision="bfloat16",
)
