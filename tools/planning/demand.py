"""What is asked for: kinds of requests, and what each asks of every stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.presets import Preset
from services.sampling import SAMPLING_PARAMETERS, paper_default
from services.stages import DECODING, ORCHESTRATOR
from tools.bench.arrivals import Kind, parse_kind


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one request asks of the stages.

    Attributes:
        amounts: By stage: steps of base and superres, texts of the text encoder, else 1.
        guided: Whether base and superres compute both branches.
    """

    amounts: Mapping[str, int]
    guided: bool = False

    def call_of(self, stage: str) -> tuple[int, int, int]:
        """Returns the steps of a call, its rows, and its work as replicas are compared by it.

        Rows are those of a step, or those of a batch where a stage has no steps. The work is what
        `services.orchestrator.replicas.work.work_of` says of the message.
        """
        amount = self.amounts[stage]
        if stage not in DECODING:
            return 0, amount, 1
        rows = 2 if self.guided else 1
        return amount, rows, amount * rows


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A load.

    Attributes:
        rate: Images a second, on average.
        works: What each kind asks, by kind.
    """

    rate: float
    works: Mapping[Kind, Work]

    @property
    def shares(self) -> dict[Kind, float]:
        """Each kind's share of the requests."""
        total = sum(kind.weight for kind in self.works)
        return {kind: kind.weight / total for kind in self.works}

    def mean(self, of_each: Mapping[Kind, float]) -> float:
        """Returns the mean over requests of something that each kind has."""
        return sum(share * of_each[kind] for kind, share in self.shares.items())

    def quantile(self, of_each: Mapping[Kind, float], share: float) -> float:
        """Returns the least value that so large a share of requests does not exceed."""
        reached = 0.0
        for kind, value in sorted(of_each.items(), key=lambda each: each[1]):
            reached += self.shares[kind]
            if reached >= share - 1e-12:
                return value
        return max(of_each.values())


def demand_of(mix: Sequence[str], preset: Preset, *, rate: float) -> Demand:
    """Reads a mix.

    Args:
        mix: Kinds as `muse bench --kind` takes them; none for the servers' defaults.
        preset: Whose default steps a kind has that names none, and whose grids limit them.
        rate: Images a second.

    Raises:
        ValueError: the rate is not above 0, a kind cannot be read or is there twice, or it asks
            for what the servers refuse.
    """
    if not 0 < rate < float("inf"):
        raise ValueError(f"images_per_second: expected a number above 0, got {rate:g}")
    works: dict[Kind, Work] = {}
    for text in mix or [""]:
        try:
            kind = parse_kind(text)
        except ValueError as error:
            raise ValueError(
                f"mix: {error}; write it such as steps=8,guidance_scale=0,weight=3"
            ) from None
        if kind in works:
            raise ValueError(
                f"mix: {text!r} is there twice: name it once, with twice the weight, such as "
                "steps=8,weight=2"
            )
        works[kind] = _work(kind, preset)
    return Demand(rate=rate, works=works)


def _work(kind: Kind, preset: Preset) -> Work:
    guidance_scale = kind.guidance_scale
    if guidance_scale is None:
        guidance_scale = paper_default("guidance_scale")
    _check_range("guidance_scale", guidance_scale, parameter="guidance_scale")
    if kind.negative not in (0, 1):
        raise ValueError(f"mix: negative: expected 0 or 1, got {kind.negative}")
    amounts = {
        ORCHESTRATOR: 1,
        "text_encoder": 1 + kind.negative,
        "base": _steps("steps", kind.steps, preset.base_steps, preset.base.tokens),
        "tokenizer": 1,
    }
    if (part := preset.superres_part) is not None:
        tokens = part.config.tokens
        amounts["superres"] = _steps("superres_steps", kind.superres_steps, part.steps, tokens)
    elif kind.superres_steps is not None:
        raise ValueError(
            f"mix: superres_steps: expected none, since {preset.name} has no superres, "
            f"got {kind.superres_steps}"
        )
    return Work(amounts=amounts, guided=guidance_scale > 0)


def _steps(name: str, asked: int | None, usual: int, tokens: int) -> int:
    """Returns the steps of a decode: those asked for, or the usual ones; one a token at most.

    Raises:
        ValueError: they are out of range.
    """
    wanted = usual if asked is None else asked
    _check_range(name, wanted, parameter="steps")
    return min(wanted, tokens)


def _check_range(name: str, value: float, *, parameter: str) -> None:
    """Raises ValueError if a value is out of the range of a sampling parameter."""
    known = SAMPLING_PARAMETERS[parameter]
    if not known.minimum <= value <= known.maximum:
        raise ValueError(f"mix: {name}: expected {known.range}, got {value:g}")


def read_seconds(name: str, text: str) -> float:
    """Reads a duration, such as "2s", "500ms" or "30m"; a bare number is in seconds.

    Raises:
        ValueError: it is none, or not above 0.
    """
    units = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    unit = next((unit for unit in units if text.strip().endswith(unit)), "")
    number = text.strip().removesuffix(unit)
    try:
        seconds = float(number) * units.get(unit, 1.0)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{name}: expected a time above 0, such as 2s or 500ms, got {text!r}")
    return seconds
