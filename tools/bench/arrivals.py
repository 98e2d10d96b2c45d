"""Open-loop arrivals: a mix of request kinds at the times of a Poisson process.

A request is sent at its time whether or not earlier requests have ended, as by independent users. A
closed loop would slow down with the server and hide its queue (Schroeder et al. 2006, "Open Versus
Closed: A Cautionary Tale").
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of request; a sampling parameter that is None keeps the server's default.

    Attributes:
        steps: Decoding steps of the base.
        superres_steps: Decoding steps of the super-resolution.
        guidance: Guidance scale of both stages.
        negative: 1 if it has a negative prompt, else 0.
        weight: Weight of the kind in the mix.
    """

    steps: int | None = None
    superres_steps: int | None = None
    guidance_scale: float | None = None
    negative: int = 0
    weight: float = 1.0

    @property
    def name(self) -> str:
        """Name in tables, such as "steps=8 guidance_scale=0"; "default" if nothing is set."""
        names = ("steps", "superres_steps", "guidance_scale")
        values = [(name, getattr(self, name)) for name in names]
        words = [f"{name}={value:g}" for name, value in values if value is not None]
        return " ".join([*words, *(["negative"] if self.negative else [])]) or "default"


def parse_kind(text: str) -> Kind:
    """Parses a kind, such as "steps=8,guidance_scale=0,weight=3".

    Raises:
        ValueError: a name is unknown, or a value is no number of its type.
    """
    types = {field.name: float if "float" in str(field.type) else int for field in fields(Kind)}
    chosen: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in types:
            raise ValueError(f"kind: expected some of {', '.join(types)}, got {part!r}")
        try:
            chosen[name] = types[name](value)
        except ValueError:
            raise ValueError(
                f"kind: expected {name} to be a number ({types[name].__name__}), got {value!r}"
            ) from None
    kind = Kind(**chosen)
    if not 0 < kind.weight < float("inf"):
        raise ValueError(f"kind: expected a weight above 0, got {kind.weight:g}")
    return kind


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One scheduled request, `at_s` seconds after the start of the run."""

    at_s: float
    kind: Kind
    seed: int


def poisson_arrivals(
    kinds: Sequence[Kind], *, rate: float, seconds: float, seed: int
) -> list[Arrival]:
    """Draws the requests of a run of some seconds, `rate` a second; equal seeds give equal ones.

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
