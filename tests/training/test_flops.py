"""Operations are counted as often as they are computed, and none that remat repeats."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jaxtyping import Array

from training.flops import flops_of

X, W = jnp.ones((5, 8)), jnp.ones((3, 8, 8))
OF_A_LAYER = 2 * 5 * 8 * 8


def layers(x: Array, w: Array, *, remat: bool) -> Array:
    """Runs three layers in a loop and returns a number."""

    def layer(carry: Array, kernel: Array) -> tuple[Array, None]:
        return jnp.tanh(carry @ kernel), None

    return lax.scan(jax.checkpoint(layer) if remat else layer, x, w)[0].sum()


def test_a_loop_counts_as_often_as_it_runs() -> None:
    assert flops_of(lambda x, w: layers(x, w, remat=False), X, W) == 3 * OF_A_LAYER


@pytest.mark.parametrize("remat", [False, True])
def test_a_gradient_is_three_products_with_and_without_remat(remat: bool) -> None:
    gradient = jax.grad(lambda x, w: layers(x, w, remat=remat), argnums=(0, 1))
    assert flops_of(gradient, X, W) == pytest.approx(3 * 3 * OF_A_LAYER)


def test_what_no_output_needs_is_not_counted() -> None:
    def of_w_alone(x: Array, w: Array) -> Array:
        _, pull_back = jax.vjp(jnp.dot, x, w)
        return pull_back(jnp.ones((5, 8)))[1]

    assert flops_of(of_w_alone, X, W[0]) == OF_A_LAYER


def test_batched_products_count_each_of_the_batch() -> None:
    assert flops_of(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), W, W) == 3 * 2 * 8**3


def test_a_convolution_counts_its_kernel_at_each_output() -> None:
    def convolve(image: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    counted = flops_of(convolve, jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 7)))
    assert counted == 2 * (2 * 6 * 6 * 7) * (3 * 3 * 4)
