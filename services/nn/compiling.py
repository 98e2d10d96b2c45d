"""Programs of networks, and what they are compiled with: platform, layouts, compiler options."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import SingleDeviceSharding
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, PyTree

# cuBLAS fuses GELU and residual sums into a product, and multiplies by a layer of a stack in place.
# By default XLA prefers its own Triton kernels: a layer of Muse-3B's base took 160 us on an H200
# and a layer of superres 654 us; with cuBLAS 139 and 562 us.
PRODUCTS_BY_CUBLAS = {"xla_gpu_enable_triton_gemm": False}
_target: ContextVar[str | None] = ContextVar("platform", default=None)


# Any: a sharding or a format takes the place of an array, or of a whole tree of them.
Placement = Any


@dataclass(frozen=True, kw_only=True)
class Program:
    """A function to compile, and the shapes of its arguments.

    Attributes:
        function: Pure; of arrays, to arrays.
        shapes: Shapes of each argument.
        takes: Shardings or formats of each argument; None leaves one to JAX.
        gives: Those of the result.
        donated: The argument whose buffers the result may overwrite.
    """

    function: Callable[..., Any]
    shapes: tuple[PyTree[jax.ShapeDtypeStruct], ...]
    takes: tuple[Placement, ...]
    gives: Placement = None
    donated: int | tuple[int, ...] = ()

    def jit(self) -> Wrapped:
        """Returns the jitted function, for the target platform."""
        return jax.jit(
            self.function,
            in_shardings=self.takes,
            out_shardings=self.gives,
            donate_argnums=self.donated,
            compiler_options=compiler_options(),
        )

    def compile(self) -> Compiled:
        """Compiles the program ahead of time."""
        return self.jit().lower(*self.shapes).compile()

    def on(self, device: jax.Device) -> "Program":
        """Returns the same program, of a single device, for another device."""
        sharding = SingleDeviceSharding(device)

        def placed(placement: Format | None) -> Placement:
            return sharding if placement is None else Format(placement.layout, sharding)

        return replace(self, takes=jax.tree.map(placed, self.takes, is_leaf=_is_none))


def target_platform() -> str:
    """Returns the platform that programs are traced for: "cpu", "gpu" or "tpu".

    It is that of the default device, unless `traced_for` names another one.
    """
    return _target.get() or jax.default_backend()


@contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Makes networks choose what suits another platform, to be lowered for it without its device.

    It holds for the programs that are made and traced in its block.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)


def chooses_layouts() -> bool:
    """Returns whether the compiler of the target platform is to choose layouts of arguments.

    A TPU multiplies by some matrices in another order of bytes than JAX's own. It copies those that
    it gets in JAX's order, at every call: 2.4 GB of Muse-3B's base, weights and contexts.
    """
    return target_platform() == "tpu"


def of_any_layout(placement: Placement) -> Placement:
    """Returns formats, with layouts that the compiler chooses, in place of shardings or of None."""
    return jax.tree.map(lambda sharding: Format(Layout.AUTO, sharding), placement, is_leaf=_is_none)


def with_formats(arrays: PyTree[Array], formats: PyTree[Format]) -> PyTree[Array]:
    """Puts arrays on the device in the layouts of formats; those that have theirs are not copied.

    Args:
        arrays: On the device.
        formats: As of `Compiled.input_formats`; an array that no program uses has no layout.
    """

    def placed(array: Any, format: Format) -> Array:
        as_it_is = format.layout is None or format.layout == array.format.layout
        return array if as_it_is else jax.device_put(array, format)

    return jax.tree.map(placed, arrays, formats)


def _is_none(placement: Placement) -> bool:
    """Returns whether a node of a tree of placements is left to JAX."""
    return placement is None


def compiler_options() -> dict[str, bool]:
    """Returns options for `jax.jit` on the target platform."""
    return PRODUCTS_BY_CUBLAS if target_platform() == "gpu" else {}
