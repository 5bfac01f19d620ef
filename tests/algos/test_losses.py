"""The losses of PPO and A2C against loops over every step, ignored ones left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from src_pure.algos.a2c import A2C
from src_pure.algos.ppo import PPO
from src_pure.distributions import Gaussian
from src_pure.types import PolicyOutput, Trajectory
from tests.algos import oracles

T, B, A = 6, 3, 4
CASES = [("discrete", 0), ("discrete", 1), ("discrete", 2), ("continuous", 0), ("continuous", 1)]


def random_rollout(seed, actions):
    """(trajectory, what the new parameters give, log_prob and entropy [T, B] of that, last_value)."""
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
    old_log_prob[ignored] = -200.0  # nothing holds it near the new one
    zeros = np.zeros((T, B))
    batch = Trajectory(zeros, zeros, action, old_log_prob, value, reward, terminated, truncated, ignored)
    return batch, PolicyOutput(logits, new_value), log_prob, entropy, rng.normal(size=B)


def loss_of(algo, batch, output, *rest):
    """The algorithm's loss where the policy gives `output` whatever it sees."""
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
