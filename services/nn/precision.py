"""Which type a network multiplies, and what is of that type besides, on each kind of device.

An accelerator computes everything between products in the type of their factors. A CPU has units
for products of bfloat16 factors (AMX) and for nothing else in bfloat16: there the factors alone are
rounded, and everything between products is float32.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from services.nn.bf16_matmul import with_bf16_factors
from services.nn.compiling import target_platform
from services.runtime.checkpoints.precision import Precision

Module = TypeVar("Module", bound=nnx.Module)
CPU_INFO = Path("/proc/cpuinfo")  # of Linux
# The instructions of AMX; those of AVX512-BF16 are no faster than float32's by XLA's products.
MATRIX_UNIT = frozenset(["amx_tile", "amx_bf16"])
_log = logging.getLogger(__name__)


def precision_to_serve(asked: Precision | None) -> Precision:
    """Returns the precision that was asked for, or the one that suits the target platform.

    That is float32 on a CPU without a matrix unit for bfloat16, and bfloat16 elsewhere. Where
    bfloat16 is asked for on such a CPU, a warning says that it is slower.
    """
    without_unit = target_platform() == "cpu" and not has_matrix_unit()
    if asked is None:
        return "float32" if without_unit else "bfloat16"
    if asked == "bfloat16" and without_unit:
        _log.warning(
            "precision bfloat16: this CPU has no matrix unit for it (%s), so it is slower than "
            "float32 here",
            ", ".join(sorted(MATRIX_UNIT)),
        )
    return asked


def has_matrix_unit() -> bool:
    """Returns whether this machine's CPU multiplies matrices of bfloat16 by a unit of its own."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:  # another system than Linux
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return set(flags.split()) >= MATRIX_UNIT


def build_in(precision: DTypeLike, build: Callable[[DTypeLike], Module]) -> Module:
    """Builds a network that multiplies factors of a type, on the target platform.

    Args:
        precision: Type of the factors: float32 or bfloat16.
        build: Builds it for a type of factors and of everything between products.
    """
    if target_platform() == "cpu" and precision == jnp.bfloat16:
        return with_bf16_factors(build(jnp.float32))
    return build(precision)
