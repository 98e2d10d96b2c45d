"""Describes every stage of a preset from its shapes alone: nothing is allocated."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from flax import nnx

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.decoding.schedule import unmasked_per_step
from services.presets import Preset
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from services.text_encoder.model import TextEncoder
from services.tokenizer.families import AnyTokenizerConfig, build_tokenizer
from services.tokenizer.vqgan_config import VqganConfig
from tools.description import arithmetic, traffic
from tools.description.chips import Chip
from tools.description.compiled import CompiledStages
from tools.description.vqgan_arithmetic import vqgan_decode, vqgan_encode


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one image must cost on a chip.

    Attributes:
        flops_per_image: Matrix products and convolutions.
        least_bytes_per_image: That must cross the chip's memory.
        floor_ms: The longer of the two at the chip's peak.
    """

    flops_per_image: int
    least_bytes_per_image: int
    floor_ms: float


@dataclass(frozen=True, kw_only=True)
class StageDescription:
    """One stage, or one of the tokenizers.

    Attributes:
        configuration: Its shape; of the tokenizer stage, none of its own.
        parameters: How many numbers it learned.
        parameters_by_part: The same by the model's top-level parts.
        cost: Of one generated image.
        token_grid: Rows and columns of its image tokens; None where there are none.
        encode: Of a tokenizer: what turning one image into tokens costs; `cost` is decoding.
        unmasked_per_step: Tokens each decoding step reveals; None where nothing is masked.
        members: The tokenizer stage's tokenizers.
    """

    configuration: Mapping[str, Any]
    parameters: int
    parameters_by_part: Mapping[str, int]
    cost: Cost
    token_grid: tuple[int, int] | None = None
    encode: Cost | None = None
    unmasked_per_step: list[int] | None = None
    members: Mapping[str, "StageDescription"] = field(default_factory=dict)

    @property
    def bytes_bf16(self) -> int:
        """Bytes of its parameters in bfloat16."""
        return traffic.BFLOAT16_BYTES * self.parameters

    def to_json(self) -> dict[str, Any]:
        """Returns plain lists, dicts and numbers."""
        written: dict[str, Any] = {
            "configuration": dict(self.configuration),
            "parameters": self.parameters,
            "parameters_by_part": dict(self.parameters_by_part),
            "bytes_bf16": self.bytes_bf16,
            "token_grid": None if self.token_grid is None else list(self.token_grid),
            **asdict(self.cost),
        }
        if self.unmasked_per_step is not None:
            written["steps"] = len(self.unmasked_per_step)
            written["unmasked_per_step"] = self.unmasked_per_step
        if self.encode is not None:
            written["encode"] = asdict(self.encode)
        return written | {name: member.to_json() for name, member in self.members.items()}


@dataclass(frozen=True, kw_only=True)
class SystemDescription:
    """A preset on a chip, with its stages in the order that a prompt passes them.

    Attributes:
        preset: Its name.
        chip: The chip.
        stages: By name.
        compiled: Memory that a compiler says their programs take there; None if it is not known.
    """

    preset: str
    chip: Chip
    stages: Mapping[str, StageDescription]
    compiled: CompiledStages | None = None

    @property
    def cost(self) -> Cost:
        """Of one image through all stages, one after the other."""
        costs = [asdict(stage.cost) for stage in self.stages.values()]
        return Cost(**{name: sum(cost[name] for cost in costs) for name in costs[0]})

    @property
    def parameters(self) -> int:
        """Of all stages."""
        return sum(stage.parameters for stage in self.stages.values())

    def to_json(self) -> dict[str, Any]:
        """Returns plain lists, dicts and numbers."""
        written = {
            "preset": self.preset,
            "chip": asdict(self.chip),
            "parameters": self.parameters,
            "bytes_bf16": traffic.BFLOAT16_BYTES * self.parameters,
            **asdict(self.cost),
            "stages": {name: stage.to_json() for name, stage in self.stages.items()},
        }
        return written if self.compiled is None else {**written, "compiled": asdict(self.compiled)}


def describe(
    preset: Preset,
    chip: Chip,
    compiled: CompiledStages | None = None,
    tokenizers: Mapping[str, AnyTokenizerConfig] | None = None,
) -> SystemDescription:
    """Describes every stage of a preset, with floors on a chip.

    Args:
        preset: The system.
        chip: What the floors are for.
        compiled: Memory that a compiler says its programs take there.
        tokenizers: Those that take the place of the preset's, by the name of their checkpoint.

    Raises:
        ValueError: base or superres of the preset has another grid or vocabulary than these.
    """
    text = preset.text_encoder
    networks: Mapping[str, AnyTokenizerConfig] = tokenizers or preset.tokenizers
    for name, network in networks.items():
        _check_fits(name, network, preset.base if name == "low" else preset.superres)
    sizes = parameter_sizes(TextEncoder, text)
    text_bytes = traffic.text_encoder(text, sizes).of(1)
    base, part = preset.base, preset.superres_part
    base_flops = arithmetic.base_decode(base)
    stages = {
        "text_encoder": _stage(text, sizes, _cost(arithmetic.text_encoder(text), text_bytes, chip)),
        "base": _masked(base, BaseTransformer, base_flops, preset.base_steps, chip),
    }
    if part is not None:
        flops = arithmetic.superres_decode(part.config)
        stages["superres"] = _masked(part.config, SuperresTransformer, flops, part.steps, chip)
    stages["tokenizer"] = _tokenizers(networks, chip)
    return SystemDescription(preset=preset.name, chip=chip, compiled=compiled, stages=stages)


def _check_fits(
    name: str, tokenizer: AnyTokenizerConfig, transformer: BaseConfig | SuperresConfig
) -> None:
    got = (tokenizer.grid, tokenizer.codebook_size)
    expected = (transformer.grid, transformer.vocabulary)
    if got != expected:
        raise ValueError(
            f"the {name} tokenizer makes {got[0]}x{got[0]} tokens of {got[1]} codes: expected "
            f"{expected[0]}x{expected[0]} of {expected[1]}, as the preset's transformer has"
        )


def parameter_sizes(model: Callable[..., nnx.Module], config: Any) -> dict[str, int]:
    """Returns how many numbers each parameter of a model holds, by dotted path; makes no array."""
    shapes = nnx.eval_shape(lambda: model(config, rngs=nnx.Rngs(0)))
    flat = nnx.to_flat_state(nnx.state(shapes, nnx.Param))
    return {".".join(map(str, path)): int(np.prod(leaf.shape)) for path, leaf in flat}


def _cost(flops: int, least_bytes: int, chip: Chip) -> Cost:
    return Cost(
        flops_per_image=flops,
        least_bytes_per_image=least_bytes,
        floor_ms=chip.floor_ms(flops, least_bytes),
    )


def _stage(config: Any, sizes: Mapping[str, int], cost: Cost, **more: Any) -> StageDescription:
    parts: dict[str, int] = defaultdict(int)
    for name, size in sizes.items():
        parts[name.split(".")[0]] += size
    return StageDescription(
        configuration=asdict(config),
        parameters=sum(sizes.values()),
        parameters_by_part=dict(parts),
        cost=cost,
        **more,
    )


def _masked(
    config: BaseConfig | SuperresConfig,
    model: Callable[..., nnx.Module],
    flops: arithmetic.DecodeFlops,
    steps: int,
    chip: Chip,
) -> StageDescription:
    sizes, unmasked = parameter_sizes(model, config), unmasked_per_step(config.tokens, steps)
    taken = len(unmasked)
    cost = _cost(flops.image(taken), traffic.masked_decode(config, sizes, steps=taken), chip)
    grid = (config.grid, config.grid)
    return _stage(config, sizes, cost, token_grid=grid, unmasked_per_step=unmasked)


def _tokenizer(config: AnyTokenizerConfig, chip: Chip) -> StageDescription:
    sizes = parameter_sizes(build_tokenizer, config)
    if isinstance(config, VqganConfig):
        flops = vqgan_encode(config), vqgan_decode(config)
    else:
        flops = arithmetic.tokenizer_encode(config), arithmetic.tokenizer_decode(config)
    encoding = flops[0], traffic.tokenizer_encode(config, sizes)
    decoding = flops[1], traffic.tokenizer_decode(config, sizes)
    grid = (config.grid, config.grid)
    cost, encode = _cost(*decoding, chip), _cost(*encoding, chip)
    return _stage(config, sizes, cost, token_grid=grid, encode=encode)


def _tokenizers(networks: Mapping[str, AnyTokenizerConfig], chip: Chip) -> StageDescription:
    """All tokenizers; a generated image costs one decoding by the last one."""
    members = {name: _tokenizer(network, chip) for name, network in networks.items()}
    last = list(members.values())[-1]
    return StageDescription(
        configuration={name: member.configuration for name, member in members.items()},
        parameters=sum(member.parameters for member in members.values()),
        parameters_by_part={name: member.parameters for name, member in members.items()},
        token_grid=last.token_grid,
        cost=last.cost,
        members=members,
    )
