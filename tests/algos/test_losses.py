"""The losses of PPO and A2C against loops over every step, ignored ones left out."""

import jax.numpy as jnp
import numpy as np
import pytest

from src_pure.algos.a2c import A2C
from src_pure.algos.ppo import PPO
from src_pure.types import PolicyOutput, Trajectory
from tests import oracles

T, B, A = 6, 3, 4


def random_rollout(seed):
    """(trajectory, logits and value that the new parameters give, log_probs [T, B, A], last_value)."""
    rng = np.random.default_rng(seed)
    reward, value, new_value = rng.normal(size=(3, T, B))
    terminated, ignored = rng.random((2, T, B)) < 0.2
    truncated = np.roll(ignored, -1, axis=0) & ~ignored & ~terminated
    action = rng.integers(A, size=(T, B))
    logits = rng.normal(size=(T, B, A))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    log_prob = np.take_along_axis(log_probs, action[..., None], -1)[..., 0] + 0.3 * rng.normal(size=(T, B))
    log_prob[ignored] = -200.0  # nothing holds it near the new one
    zeros = np.zeros((T, B))
    batch = Trajectory(zeros, zeros, action, log_prob, value, reward, terminated, truncated, ignored)
    return batch, PolicyOutput(logits, new_value), log_probs, rng.normal(size=B)


def loss_of(algo, batch, output, *rest):
    """The algorithm's loss where the policy gives `output` whatever it sees."""
    batch, output = (type(x)(*map(jnp.asarray, x)) for x in (batch, output))
    return algo.loss(None, lambda *_: (None, output), None, batch, *map(jnp.asarray, rest))[0]


@pytest.mark.parametrize("clip_value", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_ppo_loss_equals_the_loop(seed, clip_value):
    batch, output, log_probs, _ = random_rollout(seed)
    advantage = np.random.default_rng(seed + 10).normal(size=(T, B))
    kept = [(t, b) for t in range(T) for b in range(B) if not batch.ignored[t, b]]
    values = np.array([advantage[i] for i in kept])
    policy, error, entropy = [], [], []
    for i in kept:
        a = (advantage[i] - values.mean()) / (values.std() + 1e-8)
        ratio = np.exp(log_probs[i][batch.action[i]] - batch.log_prob[i])
        policy.append(min(ratio * a, np.clip(ratio, 0.8, 1.2) * a))
        target, old, new = advantage[i] + batch.value[i], batch.value[i], output.value[i]
        clipped = (old + np.clip(new - old, -0.2, 0.2) - target) ** 2
        error.append(max((new - target) ** 2, clipped) if clip_value else (new - target) ** 2)
        entropy.append(-np.sum(np.exp(log_probs[i]) * log_probs[i]))
    expected = -np.mean(policy) + 0.7 * 0.5 * np.mean(error) - 0.03 * np.mean(entropy)
    algo = PPO(clip_eps=0.2, vf_coef=0.7, ent_coef=0.03, clip_value=clip_value)
    np.testing.assert_allclose(loss_of(algo, batch, output, advantage), expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a2c_loss_equals_the_loop(seed):
    batch, output, log_probs, last_value = random_rollout(seed)
    target = oracles.lambda_return_loop(
        batch.reward, batch.terminated, batch.truncated, output.value, last_value, 0.9, 0.8
    )
    terms = []
    for t in range(T):
        for b in range(B):
            if not batch.ignored[t, b]:
                advantage = target[t, b] - output.value[t, b]
                entropy = -np.sum(np.exp(log_probs[t, b]) * log_probs[t, b])
                terms.append(-log_probs[t, b, batch.action[t, b]] * advantage + 0.7 * advantage**2 - 0.03 * entropy)
    algo = A2C(gamma=0.9, gae_lambda=0.8, vf_coef=0.7, ent_coef=0.03)
    np.testing.assert_allclose(loss_of(algo, batch, output, last_value), np.mean(terms), rtol=1e-4)
