"""A training step of the base against PyTorch's, against the machine's ceiling, and in the loop.

    python -m benchmarks.training_step [--preset demo256] [--rounds 5]

- ours: the compiled step of `training.loop`, bfloat16 factors and float32 sums, masks and Adafactor
  included;
- PyTorch: the same shape in plain PyTorch under `torch.autocast` to bfloat16, with its own
  Adafactor, eager and by `torch.compile`;
- ceiling: the best bfloat16 product with a float32 result of the same cores, of which the step's
  products and attention reach a share;
- the loop: `training.loop.train` around the same step on batches that lie ready, with a report
  every 20 steps, against the bare step.

Targets: at most 1.0 of PyTorch's faster way, half of the ceiling, at most 3% for the loop.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measuring import conditions, in_turns
from benchmarks.peers.torch_base import TorchBase
from services.base.config import BaseConfig
from services.presets import preset
from tools.description.arithmetic import product
from training.flops import flops_of_jaxpr
from training.loop import LoopSettings, compiled_step, train
from training.mesh import one_device
from training.optimizers import Recipe
from training.recipes import RECIPES
from training.tasks.frozen import Examples, FrozenStages
from training.tasks.masked_step import MaskedTokensStep
from training.tasks.masked_tokens import MaskedTokensTask

LOOP_STEPS = 40


class ReadyBatches(MaskedTokensTask):
    """The base's task on one batch that lies ready, without pictures."""

    def picture(self, state: Any, batch: Examples) -> None:
        """Draws nothing."""


class NoStages(FrozenStages):
    """Stands for the frozen stages, which a batch that lies ready does without."""

    def __init__(self) -> None:
        """Has no stage."""

    def fingerprint(self) -> dict[str, str]:
        """Names stages that there are not."""
        return {"encoder": "none", "codebook": "none"}


def examples_of(config: BaseConfig, batch_size: int) -> Examples:
    """Returns random examples whose captions have half of the text positions."""
    random = np.random.default_rng(0)
    length = config.text_length // 2
    return Examples(
        low=random.integers(0, config.vocabulary, (batch_size, config.tokens)).astype(np.int32),
        high=None,
        text=random.normal(size=(batch_size, length, config.text_hidden)).astype(np.float32),
        text_mask=np.ones((batch_size, length), bool),
    )


def our_step(step: MaskedTokensStep, examples: Examples) -> Callable[[], None]:
    """Returns what takes one step of ours and waits for it."""
    compiled = compiled_step(step, step.execution)
    state = [jax.device_put(jax.jit(step.initial_state)({}), step.execution.replicated), 0]

    def take() -> None:
        state[0], metrics = compiled(state[0], examples, state[1], "training")
        state[1] += 1
        jax.block_until_ready(metrics)

    return take


def torch_step(
    config: BaseConfig, recipe: Recipe, examples: Examples, *, compiled: bool
) -> Callable[[], None]:
    """Returns what takes one step of PyTorch's."""
    network: Any = TorchBase(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.Adafactor(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    targets = torch.from_numpy(np.asarray(examples.low)).long()
    text = torch.from_numpy(np.asarray(examples.text))
    mask = torch.from_numpy(np.asarray(examples.text_mask))[:, None, None]

    def loss_of(tokens: torch.Tensor, hidden: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            keys, values = network.context(text)
            logits = network(tokens, keys, values, mask, gate)
        losses = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        return (losses * hidden).sum() / hidden.sum()

    loss = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def take() -> None:
        ratio = torch.cos(torch.rand(len(targets), 1) * torch.pi / 2)
        hidden = torch.rand(targets.shape).argsort(-1).argsort(-1) < ratio * targets.shape[1]
        tokens = torch.where(hidden, config.vocabulary, targets)
        gate = (torch.rand(len(targets), 1, 1) >= 0.1).float()
        optimizer.zero_grad()
        loss(tokens, hidden, gate).backward()
        optimizer.step()

    return take


def bf16_ceiling() -> float:
    """Returns the most FLOPs a second of a bfloat16 product with a float32 result."""
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    best = 0.0
    for side in (1024, 2048, 4096):
        left = jnp.ones((side, side), jnp.bfloat16)
        call = partial(_product, multiply, left)
        seconds = in_turns({"": call}, rounds=8)
        best = max(best, product(side, side, side) / min(seconds[""].values))
    return best


def _product(multiply: Any, matrix: jax.Array) -> None:
    multiply(matrix, matrix).block_until_ready()


def loop_share(step: MaskedTokensStep, examples: Examples, bare_s: float) -> float:
    """Returns what the loop takes of a step's time besides the step."""
    task = ReadyBatches(step, NoStages(), lambda _: examples)
    with tempfile.TemporaryDirectory() as folder:
        train(task, LoopSettings(steps=1, out=Path(folder), save_every=10**6))  # compiles
        begun = time.perf_counter()
        train(task, LoopSettings(steps=1 + LOOP_STEPS, out=Path(folder), save_every=10**6))
        return (time.perf_counter() - begun) / LOOP_STEPS / bare_s - 1


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo256")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config, recipe = preset(arguments.preset).base, RECIPES[arguments.preset].base
    examples = examples_of(config, recipe.batch_size)
    step = MaskedTokensStep(config, recipe, one_device())
    compiled = compiled_step(step, step.execution)
    traced = compiled.trace(jax.eval_shape(step.initial_state, {}), examples, 0, "training")
    flops = flops_of_jaxpr(traced.jaxpr.jaxpr)
    print(conditions("jax", "torch"))
    print(
        f"base of {arguments.preset}, {recipe.batch_size} examples: {flops / 1e9:.0f} GFLOP a step"
    )
    seconds = in_turns(
        {
            "ours": our_step(step, examples),
            "PyTorch": torch_step(config, recipe, examples, compiled=False),
            "PyTorch compiled": torch_step(config, recipe, examples, compiled=True),
        },
        rounds=arguments.rounds,
    )
    for name, spread in seconds.items():
        print(f"{name}: {spread:.3f} s a step")
    ours = seconds["ours"].median
    fastest = min(seconds["PyTorch"].median, seconds["PyTorch compiled"].median)
    ceiling = bf16_ceiling()
    print(f"ours / PyTorch's faster: {ours / fastest:.2f}")
    print(f"ceiling {ceiling / 1e9:.0f} GFLOP/s; share of it: {flops / ours / ceiling:.0%}")
    print(f"the loop besides the step: {loop_share(step, examples, ours):+.1%}")


if __name__ == "__main__":
    main()
