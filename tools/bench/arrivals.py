"""What is asked when: kinds of requests in a mix, at the times of a Poisson process.

Open loop: a request is sent at its time whether or not earlier ones were answered, as by many users
who do not know of each other. A closed loop would slow down with the server and hide its queue
(Schroeder et al. 2006, "Open Versus Closed: A Cautionary Tale").
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of request; a parameter that is None keeps the servers' default.

    Attributes:
        steps: Decoding steps of the base.
        superres_steps: Decoding steps of the super-resolution.
        guidance_scale: Guidance scale of both.
        negative: 1 if it has a negative prompt, else 0.
        weight: Its share of the mix, over the sum of all weights.
    """

    steps: int | None = None
    superres_steps: int | None = None
    guidance_scale: float | None = None
    negative: int = 0
    weight: float = 1.0

    @property
    def name(self) -> str:
        """What tables call it, such as "steps=8 guidance_scale=0"; "default" if nothing is set."""
        parameters = {"steps": self.steps, "superres_steps": self.superres_steps}
        words = [f"{name}={value}" for name, value in parameters.items() if value is not None]
        words += [] if self.guidance_scale is None else [f"guidance_scale={self.guidance_scale:g}"]
        words += ["negative"] if self.negative else []
        return " ".join(words) or "default"


def parse_kind(text: str) -> Kind:
    """Reads a kind, such as "steps=8,guidance_scale=0,weight=3".

    Raises:
        ValueError: it names something else, or a value is no number of its sort.
    """
    sorts = {field.name: float if "float" in str(field.type) else int for field in fields(Kind)}
    chosen: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in sorts:
            raise ValueError(f"kind: expected some of {', '.join(sorts)}, got {part!r}")
        try:
            chosen[name] = sorts[name](value)
        except ValueError:
            raise ValueError(
                f"kind: expected {name} to be a number ({sorts[name].__name__}), got {value!r}"
            ) from None
    kind = Kind(**chosen)
    if not 0 < kind.weight < float("inf"):
        raise ValueError(f"kind: expected a weight above 0, got {kind.weight:g}")
    return kind


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One request to be sent.

    Attributes:
        at_s: When, in seconds from the start.
        kind: What it asks.
        seed: Of its picture.
    """

    at_s: float
    kind: Kind
    seed: int


def poisson_arrivals(
    kinds: Sequence[Kind], *, rate: float, seconds: float, seed: int
) -> list[Arrival]:
    """Draws the requests of a run, the same for the same seed.

    Args:
        kinds: The mix.
        rate: Requests a second, on average.
        seconds: How long requests arrive.
        seed: Of the times, the kinds and the pictures.

    Raises:
        ValueError: rate or seconds are not above 0, or there is no kind.
    """
    for name, value in (("rate", rate), ("seconds", seconds)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: expected a number above 0, got {value:g}")
    if not kinds:
        raise ValueError("kind: expected at least one, got none")
    chance = random.Random(f"{seed} {rate}")
    weights = [kind.weight for kind in kinds]
    arrivals, now = [], chance.expovariate(rate)
    while now < seconds:
        kind = chance.choices(kinds, weights)[0]
        arrivals.append(Arrival(at_s=now, kind=kind, seed=chance.getrandbits(64)))
        now += chance.expovariate(rate)
    return arrivals
