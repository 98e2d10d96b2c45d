"""One training step of a masked transformer: predict hidden image tokens from the rest and a text.

A random share of an image's tokens is hidden, and the caption too for one sample in ten; the loss
is the cross-entropy of the hidden tokens alone.

Source: Muse, sections 2.3, 2.4 and 2.6; Tables 4 and 6.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from services.base.families import AnyBaseConfig
from services.base.model import BaseTransformer
from services.base.uvit import NO_TEXT, UVit
from services.base.uvit_config import UVitConfig
from services.nn.bf16_matmul import with_bf16_factors
from services.nn.parameters import parameters_of, with_parameters
from services.nn.projection import Projection
from services.nn.stacks import STACKS
from services.runtime.checkpoints.adapters import LowRank
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from training.gradients import accumulated
from training.low_rank import with_fresh_adapters
from training.mesh import Execution
from training.optimizers import Parameters, Recipe, optimizer_metrics, transformer_optimizer
from training.state import TrainState, apply_gradients, new_train_state
from training.tasks.frozen import Examples
from training.tasks.masking import Guesses, corrupted, keep_text, masked_cross_entropy, random_masks

SHOWN = 8  # pictures of a report


class MaskedTokensStep:
    """The step of the base or of the super-resolution transformer; its configuration says which.

    Attributes:
        given: Parameters that learn and are not drawn at random, by name.
        fixed: Parameters that never learn.
    """

    def __init__(
        self,
        config: AnyBaseConfig | SuperresConfig,
        recipe: Recipe,
        execution: Execution,
        *,
        seed: int = 0,
        initial: Mapping[str, np.ndarray] | None = None,
        low_rank: LowRank | None = None,
    ) -> None:
        """Prepares the step.

        Args:
            config: Shape of the transformer.
            recipe: Its optimizer.
            execution: Devices, parts of a batch, remat.
            seed: Of the initial parameters, the masks and which captions are dropped.
            initial: Parameters to start from by name; those it lacks are drawn at random.
            low_rank: Size of adapters that the transformer has besides; None for no adapters.
        """
        self.config, self.recipe, self.execution, self.seed = config, recipe, execution, seed
        self.low_rank = low_rank
        self.given = {
            name: np.asarray(value, np.float32) for name, value in (initial or {}).items()
        }
        fixed = self.given.keys() & {NO_TEXT}
        self.fixed = {name: jnp.asarray(self.given.pop(name)) for name in fixed}
        self.optimizer = transformer_optimizer(recipe)
        self.guess = jax.jit(self._compiled_guess, out_shardings=execution.replicated)

    def _build(self) -> BaseTransformer | UVit | SuperresTransformer:
        rngs = nnx.Rngs(self.seed)
        bf16 = self.recipe.precision == "bfloat16"
        on_cpu = self.execution.mesh.devices.flat[0].platform == "cpu"
        dtype = jnp.bfloat16 if bf16 and not on_cpu else jnp.float32
        model: BaseTransformer | UVit | SuperresTransformer
        if isinstance(self.config, SuperresConfig):
            model = SuperresTransformer(self.config, rngs=rngs, dtype=dtype)
        elif isinstance(self.config, UVitConfig):
            model = UVit(self.config, rngs=rngs, dtype=dtype)
        else:
            model = BaseTransformer(self.config, rngs=rngs, dtype=dtype)
        for name in STACKS:
            if hasattr(model, name):
                getattr(model, name).wrap = self.execution.layer_wrapper
        if bf16 and on_cpu:
            model = with_bf16_factors(model, kind=Projection)
        if self.low_rank is not None:
            model = with_fresh_adapters(model, self.low_rank, rngs=nnx.Rngs(self.seed))
        return model

    def initial_state(self, given: Mapping[str, Array]) -> TrainState:
        """Returns the state before the first step."""
        return new_train_state(self.initial_parameters(given), self.optimizer)

    def initial_parameters(self, given: Mapping[str, Array]) -> Parameters:
        """Returns the parameters before the first step: those given, and drawn ones."""
        drawn = parameters_of(self._build())
        return {name: drawn[name] for name in drawn.keys() - self.fixed.keys()} | dict(given)

    def train_step(
        self, state: TrainState, batch: Examples, step: Int[Array, ""], phase: str
    ) -> tuple[TrainState, dict[str, Array]]:
        """Takes one step."""
        gradients, metrics = self.gradients(state.params, {}, batch, step)
        return apply_gradients(state, gradients, self.optimizer), metrics

    def gradients(
        self, learned: Parameters, frozen: Parameters, batch: Examples, step: Int[Array, ""]
    ) -> tuple[Parameters, dict[str, Array]]:
        """Computes a step's gradients.

        Args:
            learned: Parameters that the gradients are taken of.
            frozen: All others.
            batch: The examples.
            step: Number of the step: masks and dropped captions follow from it.

        Returns:
            The gradients by name, and scalars to report.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        mask_key, text_key = jax.random.split(key)
        targets = targets_of(batch)
        if isinstance(self.config, SuperresConfig) and self.recipe.low_corruption:
            low_key = jax.random.fold_in(key, 1)
            share, codes = self.recipe.low_corruption, self.config.low_vocabulary
            batch = batch._replace(low=corrupted(low_key, batch.low, share, codes))
        hidden = random_masks(mask_key, *targets.shape)
        conditional = keep_text(text_key, targets.shape[0])
        total = hidden.sum()

        def loss_of(
            parameters: Parameters, part: tuple[Examples, Array, Array]
        ) -> tuple[Array, Guesses]:
            examples, hidden, conditional = part
            logits = self.logits(frozen | parameters, examples, hidden, conditional)
            return masked_cross_entropy(logits, targets_of(examples), hidden, total=total)

        def of_part(part: tuple[Examples, Array, Array]) -> tuple[Any, tuple[()]]:
            return jax.value_and_grad(loss_of, has_aux=True)(learned, part), ()

        ((loss, guesses), gradients), _ = accumulated(
            of_part, (batch, hidden, conditional), self.execution.accumulate
        )
        return gradients, {
            "loss": loss,
            "accuracy": guesses.accuracy,
            "masked": hidden.mean(),
            "loss_by_mask_ratio": guesses.loss_by_ratio / guesses.hidden_by_ratio,
            **optimizer_metrics(self.recipe, gradients, step),
        }

    def logits(
        self,
        parameters: Parameters,
        examples: Examples,
        hidden: Bool[Array, "B N"],
        conditional: Bool[Array, " B"],
    ) -> Float[Array, "B N V"]:
        """Returns the logits of every token.

        Args:
            parameters: All of the transformer's that learn, and of its adapters if it has some.
            examples: Tokens and texts.
            hidden: Tokens that are masked.
            conditional: Examples that attend to their text.
        """
        parameters = self.fixed | parameters
        outside = {name for name in parameters if name.split(".")[0] not in STACKS}
        model = with_parameters(
            self._build,
            parameters | self.execution.gathered({name: parameters[name] for name in outside}),
        )
        tokens = jnp.where(hidden, self.config.vocabulary, targets_of(examples))
        conditions: tuple[Array, ...] = (examples.text, examples.text_mask)
        if isinstance(model, SuperresTransformer):
            conditions = (examples.low, *conditions)
        context: Any = model.context(*conditions)
        return model.logits(tokens, context, conditional)

    def _compiled_guess(
        self, parameters: Parameters, batch: Examples
    ) -> tuple[Int[Array, "S N"], Bool[Array, "S N"], Int[Array, "S N"]]:
        """Returns the tokens of the first examples, which of them are shown, and the best guess."""
        examples = jax.tree.map(lambda rows: rows[:SHOWN], batch)
        targets = targets_of(examples)
        shown = jax.random.uniform(jax.random.key(self.seed), targets.shape) < 0.5
        conditional = jnp.ones(targets.shape[0], bool)
        logits = self.logits(parameters, examples, ~shown, conditional)
        return targets, shown, jnp.where(shown, targets, jnp.argmax(logits, axis=-1))


def targets_of(examples: Examples) -> Int[Array, "B N"]:
    return examples.low if examples.high is None else examples.high
