"""The losses of PPO, A2C and PQN against loops over all steps that are not ignored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from src_pure.algos.a2c import A2C
from src_pure.algos.ppo import PPO
from src_pure.algos.pqn import PQN
from src_pure.distributions import EpsilonGreedy, Gaussian
from src_pure.types import PolicyOutput, Trajectory
from tests.algos import oracles

T, B, A = 6, 3, 4
CASES = [("discrete", 0), ("discrete", 1), ("discrete", 2), ("continuous", 0), ("continuous", 1)]


def random_rollout(seed, actions):
    """(trajectory, output of the new parameters, its log_prob and entropy [T, B], last_value)."""
    rng = np.random.default_rng(seed)
    reward, value, new_value = rng.normal(size=(3, T, B))
    terminated, ignored = rng.random((2, T, B)) < 0.2
    truncated = np.roll(ignored, -1, axis=0) & ~ignored & ~terminated
    if actions == "continuous":
        logits = Gaussian(*rng.normal(size=(2, T, B, A)))
        normal = stats.norm(logits.mean, np.exp(logits.log_std))
        action = normal.rvs(random_state=rng)
        log_prob, entropy = normal.logpdf(action).sum(-1), normal.entropy().sum(-1)
    else:
        logits, action = rng.normal(size=(T, B, A)), rng.integers(A, size=(T, B))
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        log_prob, entropy = (
            np.log(np.take_along_axis(probs, action[..., None], -1)[..., 0]),
            stats.entropy(probs, axis=-1),
        )
    old_log_prob = log_prob + 0.3 * rng.normal(size=(T, B))
    old_log_prob[ignored] = -200.0  # ignored: may be far from the new one
    zeros = np.zeros((T, B))
    batch = Trajectory(zeros, zeros, action, old_log_prob, value, reward, terminated, truncated, ignored)
    return batch, PolicyOutput(logits, new_value), log_prob, entropy, rng.normal(size=B)


def loss_of(algo, batch, output, *rest):
    """The algorithm's loss for a policy that always returns `output`."""
    batch, output = jax.tree.map(jnp.asarray, (batch, output))
    return algo.loss(None, lambda *_: (None, output), None, batch, *map(jnp.asarray, rest))[0]


@pytest.mark.parametrize("clip_value", [False, True])
@pytest.mark.parametrize(("actions", "seed"), CASES)
def test_ppo_loss_equals_the_loop(actions, seed, clip_value):
    batch, output, log_prob, entropies, _ = random_rollout(seed, actions)
    advantage = np.random.default_rng(seed + 10).normal(size=(T, B))
    kept = [(t, b) for t in range(T) for b in range(B) if not batch.ignored[t, b]]
    values = np.array([advantage[i] for i in kept])
    policy, error, entropy = [], [], []
    for i in kept:
        a = (advantage[i] - values.mean()) / (values.std() + 1e-8)
        ratio = np.exp(log_prob[i] - batch.log_prob[i])
        policy.append(min(ratio * a, np.clip(ratio, 0.8, 1.2) * a))
        target, old, new = advantage[i] + batch.value[i], batch.value[i], output.value[i]
        clipped = (old + np.clip(new - old, -0.2, 0.2) - target) ** 2
        error.append(max((new - target) ** 2, clipped) if clip_value else (new - target) ** 2)
        entropy.append(entropies[i])
    expected = -np.mean(policy) + 0.7 * 0.5 * np.mean(error) - 0.03 * np.mean(entropy)
    algo = PPO(clip_eps=0.2, vf_coef=0.7, ent_coef=0.03, clip_value=clip_value)
    np.testing.assert_allclose(loss_of(algo, batch, output, advantage), expected, rtol=1e-4)


@pytest.mark.parametrize(("actions", "seed"), CASES)
def test_a2c_loss_equals_the_loop(actions, seed):
    batch, output, log_prob, entropy, last_value = random_rollout(seed, actions)
    target = oracles.lambda_return_loop(
        batch.reward, batch.terminated, batch.truncated, output.value, last_value, 0.9, 0.8
    )
    terms = []
    for t in range(T):
        for b in range(B):
            if not batch.ignored[t, b]:
                advantage = target[t, b] - output.value[t, b]
                terms.append(-log_prob[t, b] * advantage + 0.7 * advantage**2 - 0.03 * entropy[t, b])
    algo = A2C(gamma=0.9, gae_lambda=0.8, vf_coef=0.7, ent_coef=0.03)
    np.testing.assert_allclose(loss_of(algo, batch, output, last_value), np.mean(terms), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_pqn_loss_equals_the_loop(seed):
    batch, output, *_ = random_rollout(seed, "discrete")
    values = np.asarray(output.logits)
    target = np.random.default_rng(seed + 10).normal(size=(T, B))
    output = PolicyOutput(EpsilonGreedy(values, np.zeros((T, B))), values.max(-1))
    terms = []
    for t in range(T):
        for b in range(B):
            if not batch.ignored[t, b]:
                terms.append(0.5 * (values[t, b, batch.action[t, b]] - target[t, b]) ** 2)
    np.testing.assert_allclose(loss_of(PQN(), batch, output, target), np.mean(terms), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_pqn_learns_towards_lambda_returns_of_the_largest_value(seed):
    """One step with a table of values; the loop over all returns gives its loss, targets and gradient."""
    batch, *_, last_value = random_rollout(seed, "discrete")
    target = oracles.lambda_return_loop(
        batch.reward, batch.terminated, batch.truncated, batch.value, last_value, 0.9, 0.8
    )
    table = np.random.default_rng(seed + 20).normal(size=(T, B, A))
    algo = PQN(gamma=0.9, q_lambda=0.8, num_minibatches=1, update_epochs=1, max_grad_norm=jnp.inf)

    def apply(params, rows, obs, reset):
        values = jnp.take(params, rows, axis=1)
        return rows, PolicyOutput(EpsilonGreedy(values, jnp.zeros(values.shape[:2])), values.max(-1))

    batch, last_value = jax.tree.map(jnp.asarray, (batch, last_value))
    learner = algo.init(jnp.asarray(table))
    _, metrics = algo.update(jax.random.key(0), learner, apply, jnp.arange(B), batch, last_value)
    kept = ~np.asarray(batch.ignored)
    error = (np.take_along_axis(table, np.asarray(batch.action)[..., None], -1)[..., 0] - target)[kept]
    np.testing.assert_allclose(metrics["loss"], 0.5 * np.mean(error**2), rtol=1e-4)
    np.testing.assert_allclose(metrics["mean_target"], np.mean(target[kept]), rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(np.sum(error**2)) / len(error), rtol=1e-4)


def test_pqn_explores_less_and_less():
    algo = PQN(epsilon_start=1.0, epsilon_end=0.2, epsilon_decay=0.5, num_updates=8)
    values, greedy = jnp.arange(6.0).reshape(2, 3), jnp.zeros(2)
    explored = [algo.explore(EpsilonGreedy(values, greedy), jnp.int32(update)).epsilon for update in (0, 1, 2, 4, 8)]
    wanted = np.broadcast_to(np.array([1.0, 0.8, 0.6, 0.2, 0.2])[:, None], (5, 2))
    np.testing.assert_allclose(explored, wanted, rtol=1e-5)
