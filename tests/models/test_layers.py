"""The gate of GTrXL against its equation, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from src_pure.models.layers import GRUGate


def test_gate_and_its_gradients_are_those_of_the_equation():
    gate, rng = GRUGate(), np.random.default_rng(0)
    x, y = (jnp.float32(rng.normal(size=(2, 4, 3, 6))) for _ in range(2))  # two runs
    params = jax.vmap(lambda key: gate.init(key, x[0], y[0]))(jax.random.split(jax.random.key(0), 2))

    def equation(params, x, y):
        w, u, u_n = (params["params"][name]["kernel"] for name in ("w", "u", "u_n"))
        w_r, w_z, w_n = jnp.split(w, 3, axis=1)
        u_r, u_z = jnp.split(u, 2, axis=1)
        r = jax.nn.sigmoid(y @ w_r + x @ u_r)
        z = jax.nn.sigmoid(y @ w_z + x @ u_z - params["params"]["bias"])
        return (1 - z) * x + z * jnp.tanh(y @ w_n + (r * x) @ u_n)

    def of_all_runs(function):
        return jax.vmap(jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(function(*args))), (0, 1, 2)))(params, x, y)

    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5),
        of_all_runs(gate.apply),
        of_all_runs(equation),
    )
