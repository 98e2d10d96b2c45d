"""Which type a network multiplies, and what is of that type besides, on each kind of device.

An accelerator computes everything between products in the type of their factors. A CPU has
instructions for products of bfloat16 factors (AMX, AVX512-BF16) and for little else in bfloat16:
there the factors alone are rounded, and everything between products is float32.
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
# By XLA's products AVX512-BF16 is faster than float32 on AMD's CPUs, and slower on Intel's.
FAST = (({"amx_tile", "amx_bf16"}, ""), ({"avx512_bf16"}, "AuthenticAMD"))
_log = logging.getLogger(__name__)


def precision_to_serve(asked: Precision | None) -> Precision:
    """Returns the precision that was asked for, or the one that suits the target platform.

    That is float32 on a CPU that multiplies it faster, and bfloat16 elsewhere. Where bfloat16 is
    asked for on such a CPU, a warning says that it is slower.
    """
    slow = target_platform() == "cpu" and not multiplies_bfloat16_faster()
    if asked is None:
        return "float32" if slow else "bfloat16"
    if asked == "bfloat16" and slow:
        _log.warning(
            "precision bfloat16: this CPU has neither AMX nor an AMD's AVX512-BF16, so it is "
            "slower than float32 here"
        )
    return asked


def multiplies_bfloat16_faster() -> bool:
    """Returns whether this machine's CPU multiplies matrices of bfloat16 faster than float32's."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:  # another system than Linux
        return False
    names = ("flags", "vendor_id")
    flags, vendor = (next((each for each in lines if each.startswith(name)), "") for name in names)
    return any(set(flags.split()) >= needed and maker in vendor for needed, maker in FAST)


def build_in(precision: DTypeLike, build: Callable[[DTypeLike], Module]) -> Module:
    """Builds a network that multiplies factors of a type, on the target platform.

    Args:
        precision: Type of the factors: float32 or bfloat16.
        build: Builds it for a type of factors and of everything between products.
    """
    if target_platform() == "cpu" and precision == jnp.bfloat16:
        return with_bf16_factors(build(jnp.float32))
    return build(precision)
