"""What is computed in 32 bits takes and gives 32 bits, whatever the program around it does."""

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.bits import in_32_bits


@in_32_bits
def everything(x, number, key, nothing=None):
    return x * 0.1, jnp.zeros(2), jnp.arange(3) + number, jax.random.normal(key), jnp.sum(x > 0), jnp.sum(x > 0) / 2


def test_types_and_numbers_are_those_of_32_bits():
    arguments = (np.linspace(-1.0, 1.0, 5), np.int64(7), jax.random.key(0))
    without = everything(*arguments)
    with jax.enable_x64(True):
        within = everything(*map(jax.device_put, arguments))
        traced = jax.jit(everything)(*arguments)
        named = everything(number=7, x=arguments[0], key=arguments[2])
    for outputs in (within, traced, named):
        assert [x.dtype for x in outputs] == [x.dtype for x in without]
        for ours, theirs in zip(outputs, without, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_the_program_around_it_keeps_its_own():
    with jax.enable_x64(True):
        everything(np.ones(1), 1, jax.random.key(0))
        assert jnp.zeros(1).dtype == jnp.float64


def test_pixels_keys_and_objects_are_left_as_they_are():
    given = (np.zeros(2, np.uint8), jax.random.key(0), "text", 1.0, None, jnp.zeros(2, jnp.bfloat16))
    with jax.enable_x64(True):
        taken = in_32_bits(lambda *args: args)(*given)
    assert all(a is b for a, b in zip(taken, given, strict=True))
