"""The programs that each stage compiles before it serves, with shapes in place of weights."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.stages import Compiled

from services.base.spec import BASE
from services.decoding.programs import PoolFunctions, pool_programs
from services.decoding.serving import ServingConfig
from services.masked.spec import MaskedSpec
from services.nn.compiling import Program
from services.nn.parameters import parameter_shapes
from services.nn.quantization import with_weight_format
from services.nn.sharding import check_divides
from services.presets import Preset
from services.runtime.checkpoints.precision import Precision
from services.stages import StageName
from services.superres.spec import SUPERRES
from services.text_encoder.model import TextEncoder
from services.text_encoder.programs import embed_programs
from services.tokenizer.config import TokenizerConfig
from services.tokenizer.programs import served_tokenizer, tokenizer_programs

Compile = Callable[[str, Program], Compiled]
"""Compiles the program of a name."""


def compile_stage(
    system: Preset,
    stage: StageName,
    serving: ServingConfig,
    mesh: Mesh | None,
    compile: Compile,
) -> None:
    """Compiles a stage's programs in the order of its server; draws no weights.

    Args:
        system: Configuration of every stage.
        stage: Which of them.
        serving: Slots of base and superres, which are texts of one call of the text encoder too;
            types of the weights. A tokenizer takes one picture at a time.
        mesh: Of the devices that share base or superres.
        compile: Gets every program.

    Raises:
        ValueError: the devices cannot share the stage evenly.
    """
    if stage == "text_encoder":
        _text_encoder(system, serving, compile)
    elif stage == "tokenizer":
        for name, config in system.tokenizers.items():
            _tokenizer(name, config, serving, compile)
    elif stage == "base":
        _pool(BASE, system.base, serving, mesh).compile_each(compile)
    else:
        _pool(SUPERRES, system.superres, serving, mesh).compile_each(compile)


def _text_encoder(system: Preset, serving: ServingConfig, compile: Compile) -> None:
    config, dtype = system.text_encoder, serving.dtype

    def build() -> TextEncoder:
        return TextEncoder(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)

    shapes = parameter_shapes(with_weight_format(build, serving.weights), dtype=dtype)
    for length, program in embed_programs(*shapes, config, rows=serving.slots).items():
        compile(f"embed {length} tokens", program)


def _tokenizer(
    name: str, config: TokenizerConfig, serving: ServingConfig, compile: Compile
) -> None:
    precision: Precision = "bfloat16" if serving.dtype == jnp.bfloat16 else "float32"
    shapes = parameter_shapes(lambda: served_tokenizer(config, precision), dtype=jnp.float32)
    for kind, program in tokenizer_programs(*shapes, config)._asdict().items():
        compile(f"{kind} {name}", program)


def _pool(
    spec: MaskedSpec[Any], config: Any, serving: ServingConfig, mesh: Mesh | None
) -> PoolFunctions:
    check_divides(serving.shards, spec.sharded(config))
    build = with_weight_format(lambda: spec.build(config, serving.dtype), serving.weights)
    return pool_programs(
        *parameter_shapes(build, dtype=serving.dtype),
        inputs=spec.input_shapes(config),
        tokens=config.tokens,
        mask_id=config.vocabulary,
        slots=serving.slots,
        adapter_rank=0,
        mesh=mesh,
        rows_at_once=serving.rows_at_once,
    )
