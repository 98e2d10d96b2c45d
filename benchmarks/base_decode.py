"""One image of the base's decode loop: ours, the same in PyTorch, and `muse-maskgit-pytorch`.

`python -m benchmarks.base_decode` (`--tiny` to see that it runs; `--no-peers` without PyTorch;
`--precision bfloat16`). Random weights, two CPUs, every contender in turn; `muse-maskgit-pytorch`
as it ships, in float32. Ours is driven as the server drives it:
the scheduler over the pool, the text's context made for each image, eight slots of which one is
taken. How to install the peers: benchmarks/README.md.
"""

import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cyclopts import App

from benchmarks.ceiling import SIDES, matrix_ceiling
from benchmarks.measuring import Spread, conditions, in_turns, limit_cpus
from benchmarks.ours import OurDecode, Text, random_text
from services.base.config import BaseConfig
from services.decoding.schedule import clamped_steps
from services.decoding.state import Sampling
from services.runtime.checkpoints.precision import Precision
from tools.description import arithmetic

SHAPE = BaseConfig(
    grid=16,
    vocabulary=8192,
    hidden=512,
    layers=8,
    heads=8,
    mlp=2048,
    text_hidden=512,
    text_length=128,
)
TINY = BaseConfig(
    grid=4, vocabulary=32, hidden=32, layers=2, heads=2, mlp=128, text_hidden=32, text_length=8
)
TINY_SIDES = (64,)
CPUS = 2
STEPS, GUIDANCE = 24, 4.0
TOLERANCE: Mapping[Precision, float] = {"float32": 1e-3, "bfloat16": 0.2}  # of logits
TARGETS: Mapping[Precision, Mapping[str, float]] = {
    "float32": {"torch": 0.8, "lucidrains": 0.5, "ceiling": 0.85},
    "bfloat16": {"torch": 0.8, "lucidrains": 0.25, "ceiling": 0.6},
}

app = App(help=__doc__)


def largest_difference(ours: OurDecode, peer: Any, text: Text) -> tuple[float, float]:
    """Compares logits with and without the text, some tokens masked, some not.

    Returns:
        The largest difference, and the standard deviation of our logits.
    """
    config, random = ours.config, np.random.default_rng(3)
    tokens = random.integers(0, config.vocabulary, (2, config.tokens))
    tokens[random.random(tokens.shape) < 0.5] = config.vocabulary
    batch = np.stack([text.embedding] * 2), np.stack([text.mask] * 2)
    conditional = np.array([True, False])
    expected = np.asarray(ours.model.logits(tokens, ours.model.context(*batch), conditional))
    got = peer.logits(tokens, *batch, conditional)
    return float(np.abs(got - expected).max()), float(expected.std())


def peers_of(
    ours: OurDecode, config: BaseConfig, text: Text, steps: int, precision: Precision
) -> dict[str, Callable[[], np.ndarray]]:
    """Builds the peers and checks that the first two compute what ours does.

    Raises:
        ValueError: their logits differ from ours.
    """
    import torch

    from benchmarks.peers.lucidrains import LucidrainsDecode
    from benchmarks.peers.torch_base import TorchDecode

    torch.set_num_threads(CPUS)
    torch.manual_seed(0)
    dtype, allowed = getattr(torch, precision), TOLERANCE[precision]
    eager = TorchDecode(config, ours.parameters, compiled=False, dtype=dtype)
    difference, deviation = largest_difference(ours, eager, text)
    print(
        f"check: logits of ours and PyTorch differ by {difference:.1e} at most "
        f"(their standard deviation is {deviation:.2f}; allowed {allowed:g})"
    )
    if not difference <= allowed:
        raise ValueError(f"expected equal logits, got a difference of {difference:g}")
    parameters = {"temperature": 0.0, "choice_temperature": 0.0}
    same = ours.image(
        text, Sampling(steps=steps, guidance_scale=GUIDANCE, **parameters)
    ) == eager.image(text.embedding, text.mask, steps=steps, guidance_scale=GUIDANCE, **parameters)
    print(f"check: without noise, {same.sum()} of {same.size} tokens of an image are the same")

    flops = eager.flops(text.embedding, text.mask, steps=steps, guidance_scale=GUIDANCE)
    print(
        f"FLOPs of an image: ours {arithmetic.base_decode(config).image(steps) / 1e9:.2f} G, "
        f"PyTorch {flops / 1e9:.2f} G"
    )

    def timed(peer: TorchDecode) -> Callable[[], np.ndarray]:
        return lambda: peer.image(text.embedding, text.mask, steps=steps, guidance_scale=GUIDANCE)

    contenders = {"torch eager": timed(eager)}
    if shutil.which("g++") is None:
        print("torch.compile is left out: it needs g++, which is not here")
    else:
        compiled = TorchDecode(config, ours.parameters, compiled=True, dtype=dtype)
        contenders["torch compiled"] = timed(compiled)
    for flash in (True, False):
        theirs = LucidrainsDecode(config, flash=flash)
        contenders[f"lucidrains flash={flash}"] = lambda theirs=theirs: theirs.image(
            text.embedding, steps=steps, guidance_scale=GUIDANCE
        )
    return contenders


def print_ratios(seconds: dict[str, Spread], precision: Precision) -> None:
    """Prints ours over the faster of each kind of peer."""
    for kind in ("torch", "lucidrains"):
        peers = {name: each for name, each in seconds.items() if name.startswith(kind)}
        if peers:
            name = min(peers, key=lambda each: peers[each].median)
            ratio = seconds["ours"].median / peers[name].median
            print(f"ratio ours / {name}: {ratio:.2f} (target <= {TARGETS[precision][kind]:g})")


@app.default
def main(
    *, rounds: int = 7, tiny: bool = False, peers: bool = True, precision: Precision = "float32"
) -> None:
    """Prints seconds an image of each contender, their ratios, and our share of the ceiling.

    Parameters
    ----------
    rounds
        Timed images of each contender.
    tiny
        A tiny shape, to see that it runs; its figures mean nothing.
    peers
        Whether PyTorch and muse-maskgit-pytorch take part.
    precision
        Of the factors of our products, and of PyTorch's weights and arithmetic.
    """
    cpus = limit_cpus(CPUS)
    config = TINY if tiny else SHAPE
    steps = clamped_steps(config.tokens, STEPS)
    packages = ("jax", "flax", *(("torch", "muse-maskgit-pytorch") if peers else ()))
    print(conditions(*packages))
    print(
        f"{config}, {steps} steps, guidance {GUIDANCE:g}, {precision}, {cpus} CPUs, random weights"
    )
    ours, text = OurDecode(config, precision=precision), random_text(config)
    sampling = Sampling(steps=steps, guidance_scale=GUIDANCE)
    contenders: dict[str, Callable[[], np.ndarray]] = {"ours": lambda: ours.image(text, sampling)}
    if peers:
        contenders |= peers_of(ours, config, text, steps, precision)
    seconds = in_turns(contenders, rounds=rounds)
    for name, spread in seconds.items():
        print(f"{name:24} {spread:.3f} s an image, median (min-max) of {rounds}")
    print_ratios(seconds, precision)
    ceilings = matrix_ceiling(
        TINY_SIDES if tiny else SIDES, precision=precision, torch=_torch() if peers else None
    )
    print_share(config, steps, seconds["ours"], ceilings, precision)


def _torch() -> Any:
    import torch

    return torch


def print_share(
    config: BaseConfig,
    steps: int,
    ours: Spread,
    ceilings: Mapping[str, float],
    precision: Precision,
) -> None:
    """Prints our FLOPs an image and the share of the matrix ceiling they come to."""
    best = max(ceilings.values())
    flops = arithmetic.base_decode(config).image(steps)
    rate = flops / ours.median
    printed = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in ceilings.items())
    print(f"matrix ceiling, {precision}: {printed} GFLOP/s")
    print(f"ours: {flops / 1e9:.2f} GFLOP an image, {rate / 1e9:.1f} GFLOP/s")
    print(
        f"share of the ceiling: {rate / best:.0%} (target >= {TARGETS[precision]['ceiling']:.0%})"
    )


if __name__ == "__main__":
    app()
