"""Parameters far from their initial values, without running the initialisers."""

import jax


def random_params(module, *args, seed=0):
    """Normal parameters, those of a matrix scaled to keep the size of what goes through it."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    scale = [x.shape[0] ** -0.5 if len(x.shape) > 1 else 0.5 for x in leaves]
    values = [s * jax.random.normal(key, x.shape) for s, key, x in zip(scale, keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, values)
