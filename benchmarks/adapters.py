"""What loaded adapters add to an image of the base's decode, named by the request or not.

`python -m benchmarks.adapters` (`--tiny` to see that it runs). Shape and driver are those of
`benchmarks.base_decode`; the adapters are random, of rank 8, beside every matrix of the layers. A
server computes all adapters that it has at every step: so the time should grow with how many are
loaded, as their multiplications do, and not with how many a request names.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cyclopts import App
from jaxtyping import Float

from benchmarks.base_decode import CPUS, GUIDANCE, SHAPE, STEPS, TINY
from benchmarks.measuring import conditions, in_turns, limit_cpus
from benchmarks.ours import OurDecode, random_text
from services.decoding.schedule import clamped_steps
from services.decoding.state import Sampling
from services.nn.stacks import STACKS
from services.runtime.checkpoints.adapters import KERNEL, Adapter, LowRank

RANK = 8
LOADED = (1, 8)

app = App(help=__doc__)


def random_adapters(
    parameters: Mapping[str, Float[np.ndarray, "..."]], count: int
) -> dict[str, Adapter]:
    """Draws adapters of every matrix in the layers of a model.

    Args:
        parameters: Of the model, by name.
        count: How many.
    """
    random = np.random.default_rng(4)
    shapes = {
        name: value.shape
        for name, value in parameters.items()
        if name.partition(".")[0] in STACKS and name.endswith(KERNEL)
    }

    def factors() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            name: (
                random.standard_normal((*stack, inputs, RANK), np.float32) * inputs**-0.5,
                random.standard_normal((*stack, RANK, outputs), np.float32) * 0.01,
            )
            for name, (*stack, inputs, outputs) in shapes.items()
        }

    return {
        f"drawn-{index}": Adapter(
            stage="base",
            low_rank=LowRank(rank=RANK),
            checkpoint="",
            factors=factors(),
            digest="",
            record={},
            folder=Path(),
        )
        for index in range(count)
    }


def share_of_multiplications(adapters: Mapping[str, Adapter]) -> float:
    """Returns the multiplications of adapters over those of the matrices that they stand beside."""
    added = matrices = 0
    for name in next(iter(adapters.values())).factors:
        a, b = next(iter(adapters.values())).factors[name]
        matrices += int(np.prod(a.shape[:-1])) * b.shape[-1]
        added += sum(x.size + y.size for x, y in (each.factors[name] for each in adapters.values()))
    return added / matrices


@app.default
def main(*, rounds: int = 7, tiny: bool = False) -> None:
    """Prints seconds an image without adapters, with some loaded, and with them named.

    Parameters
    ----------
    rounds
        Timed images of each contender.
    tiny
        A tiny shape, to see that it runs; its figures mean nothing.
    """
    cpus = limit_cpus(CPUS)
    config = TINY if tiny else SHAPE
    steps = clamped_steps(config.tokens, STEPS)
    print(conditions("jax", "flax"))
    print(f"{config}, {steps} steps, guidance {GUIDANCE:g}, float32, {cpus} CPUs, random weights")
    text, sampling = random_text(config), Sampling(steps=steps, guidance_scale=GUIDANCE)
    plain = OurDecode(config)
    contenders = {"none": lambda: plain.image(text, sampling)}
    predicted = {"none": 0.0}
    for count in LOADED:
        adapters = random_adapters(plain.parameters, count)
        ours = OurDecode(config, adapters)
        for how, weights in (("loaded", {}), ("named", dict.fromkeys(adapters, 1.0))):
            name = f"{count} {how}"
            contenders[name] = lambda ours=ours, weights=weights: ours.image(
                text, sampling, weights
            )
            predicted[name] = share_of_multiplications(adapters)
    seconds = in_turns(contenders, rounds=rounds)
    for name, spread in seconds.items():
        ratio = spread.median / seconds["none"].median
        print(
            f"{name:9} {spread:.3f} s an image, median (min-max) of {rounds}; {ratio:.2f} x none; "
            f"its multiplications are {predicted[name]:.1%} of the matrices'"
        )


if __name__ == "__main__":
    app()
