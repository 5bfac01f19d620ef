"""Slow, obvious NumPy twins of the returns."""

import numpy as np


def gae_loop(reward, terminated, truncated, value, last_value, gamma, lam):
    """Advantages [T, B] as explicit sums of discounted errors up to the end of each episode."""
    num_steps, num_rows = reward.shape
    values = np.concatenate([value, last_value[None]])
    advantage = np.zeros((num_steps, num_rows))
    for b in range(num_rows):
        for start in range(num_steps):
            weight = 1.0
            for t in range(start, num_steps):
                bootstrap = 0.0 if terminated[t, b] else values[t + 1, b]
                advantage[start, b] += weight * (reward[t, b] + gamma * bootstrap - values[t, b])
                weight *= gamma * lam
                if terminated[t, b] or truncated[t, b]:
                    break
    return advantage


def lambda_return_loop(reward, terminated, truncated, value, last_value, gamma, lam):
    """Targets [T, B] as the weighted mean of all n-step returns (Sutton & Barto 2018, eq. 12.3)."""
    num_steps, num_rows = reward.shape
    values = np.concatenate([value, last_value[None]])
    target = np.zeros((num_steps, num_rows))
    for b in range(num_rows):
        for start in range(num_steps):
            so_far, weight, discount = 0.0, 1.0, 1.0
            for t in range(start, num_steps):
                so_far += discount * reward[t, b]
                discount *= gamma
                n_step = so_far + (0.0 if terminated[t, b] else discount * values[t + 1, b])
                last = terminated[t, b] or truncated[t, b] or t == num_steps - 1
                target[start, b] += weight * (n_step if last else (1 - lam) * n_step)
                weight *= lam
                if last:
                    break
    return target
