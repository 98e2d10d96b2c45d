"""Times of a stage computed from its shapes: the chip's ceiling, of which a share is reached.

A run takes the longer of its arithmetic and its traffic, as in `muse describe`, divided by the
share. Base and superres compute one request after the other, both branches of guidance together,
or `rows` requests in one call of the network (services/decoding/advance.py); the tokenizer computes
one picture after the other, the text encoder all rows of a batch, whoever is in them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from flax import nnx

from services.base.config import BaseConfig
from services.base.model import BaseTransformer
from services.presets import Preset
from services.superres.config import SuperresConfig
from services.superres.model import SuperresTransformer
from services.text_encoder.config import TextEncoderConfig
from services.text_encoder.model import TextEncoder
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.model import Tokenizer
from tools.description import arithmetic, traffic
from tools.description.chips import Chip
from tools.description.compiled import CompiledStages
from tools.description.description import parameter_sizes
from tools.description.rendering import scaled
from tools.description.traffic import BFLOAT16_BYTES
from tools.planning.step_times import BatchTimes, SlotTimes, StageTimes

BATCHES = (1, 2, 4, 8, 16)  # that are tried
MAX_WAIT_S = 0.005  # the servers' default
FLOAT32_BYTES = 4

Seconds = Callable[[int, int], float]  # of FLOPs and bytes


def computed(
    preset: Preset,
    chip: Chip,
    stages: Collection[str],
    *,
    efficiency: float,
    max_batch_size: int | None,
    rows: int = 1,
    compiled: CompiledStages | None = None,
) -> dict[str, list[StageTimes]]:
    """Returns the times of each stage with every size of batch it could have; smallest first.

    Args:
        preset: Whose stages.
        chip: One for each replica.
        stages: Names of those that are wanted.
        efficiency: Share of the chip's ceiling that is reached.
        max_batch_size: The only size; None for those of 1 to 16 that fit.
        rows: Decodes that one call of the network of base and superres computes, as the servers'
            `--rows`; their batches are no smaller.
        compiled: Whose temporary arrays need memory too, in base, superres and tokenizer whatever
            the batch, as they compute its members one by one.

    Raises:
        ValueError: a stage does not fit the chip's memory, or `rows` is above max_batch_size.
    """
    if max_batch_size is not None and rows > max_batch_size:
        raise ValueError(
            f"rows: expected 1 to max_batch_size {max_batch_size}, got {rows}: a call of the "
            "network computes decodes that are in slots"
        )

    def seconds(flops: int, moved: int) -> float:
        return chip.floor_ms(flops, moved) / 1e3 / efficiency

    batches = [max_batch_size] if max_batch_size else BATCHES
    slots = [batch for batch in batches if batch >= rows] or [rows]
    base = preset.base
    of_stage: dict[str, Callable[[], list[StageTimes]]] = {
        "text_encoder": lambda: _text_encoder(preset.text_encoder, seconds, batches),
        "base": lambda: _masked(
            base, BaseTransformer, arithmetic.base_decode(base), seconds, slots, rows
        ),
        "superres": lambda: _masked(
            preset.superres,
            SuperresTransformer,
            arithmetic.superres_decode(preset.superres),
            seconds,
            slots,
            rows,
        ),
        "tokenizer": lambda: _tokenizer(list(preset.tokenizers.values()), seconds, batches),
    }
    found = {}
    for name in stages:
        options = _with_temporaries(of_stage[name](), name, compiled)
        found[name] = [each for each in options if each.memory_bytes <= chip.memory_bytes]
        if not found[name]:
            least = options[0]
            raise ValueError(
                f"{name} of {preset.name} does not fit: {scaled(least.memory_bytes, 'B')} with a "
                f"batch of {least.together}, and {chip.label} has "
                f"{scaled(chip.memory_bytes, 'B')}; "
                "take a smaller --max-batch-size, another chip or a smaller preset"
            )
    return found


def _with_temporaries(
    options: list[StageTimes], stage: str, compiled: CompiledStages | None
) -> list[StageTimes]:
    """Adds to the memory of a stage what its programs keep while they run."""
    if compiled is None or stage not in compiled.stages:
        return options
    temporary = compiled.stages[stage].temporary_bytes

    def size(batch: int) -> int:
        together = stage == "text_encoder"
        return temporary * batch // compiled.max_batch_size if together else temporary

    return [replace(each, memory_bytes=each.memory_bytes + size(each.together)) for each in options]


def _wait_s(batch: int) -> float:
    """A batch of one is full at once."""
    return MAX_WAIT_S if batch > 1 else 0.0


def _text_encoder(
    config: TextEncoderConfig, seconds: Seconds, batches: Sequence[int]
) -> list[StageTimes]:
    """A batch is padded with empty rows, and texts are taken to have the full length."""
    sizes = parameter_sizes(TextEncoder, config)
    flops, moved = arithmetic.text_encoder(config), traffic.text_encoder(config, sizes)
    widest = BFLOAT16_BYTES * config.maximum_length * 2 * config.mlp
    return [
        BatchTimes(
            batch_s=(0.0, *(batch * [seconds(batch * flops, moved.of(batch))])),
            max_wait_s=_wait_s(batch),
            memory_bytes=BFLOAT16_BYTES * sum(sizes.values()) + batch * widest,
        )
        for batch in batches
    ]


def _tokenizer(
    configs: Sequence[TokenizerConfig], seconds: Seconds, batches: Sequence[int]
) -> list[StageTimes]:
    """A picture is decoded by the last tokenizer, in float32; all of them are loaded."""
    *_, sizes = loaded = [parameter_sizes(Tokenizer, each) for each in configs]
    last = configs[-1]
    one_s = seconds(arithmetic.tokenizer_decode(last), traffic.tokenizer_decode(last, sizes))
    weights = sum(sum(each.values()) for each in loaded)
    widest = last.image_size**2 * last.decoder_base_channels
    return [
        BatchTimes(
            batch_s=tuple(rows * one_s for rows in range(batch + 1)),
            max_wait_s=_wait_s(batch),
            memory_bytes=FLOAT32_BYTES * (weights + batch * widest),
        )
        for batch in batches
    ]


def _masked(
    config: BaseConfig | SuperresConfig,
    model: Callable[..., nnx.Module],
    flops: arithmetic.DecodeFlops,
    seconds: Seconds,
    batches: Sequence[int],
    rows_at_once: int,
) -> list[StageTimes]:
    """Guidance is taken to cost its branch at every step, the first one too.

    A call that computes several decodes takes as long for a part of them, with guidance or without.

    In memory are weights, keys and values of prompt and negative prompt, and the logits of both
    branches in float32, as k8s/components/muse-3b counts them.
    """
    sizes = parameter_sizes(model, config)
    step, context = traffic.masked_step(config, sizes), traffic.masked_context(config, sizes)
    logits = FLOAT32_BYTES * 2 * config.tokens * config.vocabulary
    one = flops.conditional + flops.last_layer
    unguided_s = seconds(one, step.of(1))
    guided_s = seconds(one + flops.unconditional, step.of(1))
    call_s = seconds(rows_at_once * (one + flops.unconditional), step.of(rows_at_once))

    def of_requests(requests: int, guided: int) -> float:
        if rows_at_once > 1:
            return -(-requests // rows_at_once) * call_s
        return (requests - guided) * unguided_s + guided * guided_s

    step_s = tuple(
        tuple(of_requests(requests, guided) for guided in range(requests + 1))
        for requests in range(max(batches) + 1)
    )
    return [
        SlotTimes(
            step_s=step_s[: slots + 1],
            admit_s=seconds(flops.context, context.of(1)),
            memory_bytes=BFLOAT16_BYTES * sum(sizes.values())
            + slots * (2 * traffic.cached_bytes(config) + logits),
        )
        for slots in batches
    ]
