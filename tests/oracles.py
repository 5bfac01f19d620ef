"""Slow, obvious NumPy twins of what the project computes fast. One section per topic."""

import numpy as np

# --- T-Maze ---------------------------------------------------------------------------------------------------------


class TMazeLoop:
    """One T-Maze, stepped in plain Python. Observations come without the distractors."""

    def __init__(self, variant, corridor_len, time_limit):
        self.variant, self.corridor_len, self.time_limit = variant, corridor_len, time_limit

    def reset(self, cue):
        self.cue, self.position, self.time = cue, 0, 0
        if self.variant == "v1":
            return [0, 1, 1] if cue == 0 else [1, 1, 0]
        return [*((0, 1) if cue == 0 else (1, 0)), *self._gray_code()]

    def step(self, action):
        """(observation without distractors, reward, terminated, truncated)"""
        reward, terminated = -0.1, False
        if self.position == self.corridor_len - 1:
            if action in (0, 1):
                reward, terminated = (4.0 if action == self.cue else -1.0), True
        elif action == 2:
            self.position = max(self.position - 1, 0)
        elif action == 3:
            self.position += 1
        self.time += 1
        return self._observation(), reward, terminated, self.time >= self.time_limit

    def _observation(self):
        if self.variant == "v1":
            return [0, 1, 0] if self.position == self.corridor_len - 1 else [1, 0, 1]
        return [0, 0, *self._gray_code()]

    def _gray_code(self):
        """The n-th of the 256 codewords, built by reflection: 0 + the list, then 1 + the list backwards."""
        codewords = [[]]
        for _ in range(8):
            codewords = [[0, *word] for word in codewords] + [[1, *word] for word in reversed(codewords)]
        return codewords[self.position]


def tmaze_episode(maze, cue, actions):
    """{obs [T+1, D], position [T+1], reward [T], terminated [T], truncated [T]} without stopping at the end."""
    obs, position = [maze.reset(cue)], [maze.position]
    steps = []
    for action in actions:
        seen, *step = maze.step(action)
        obs.append(seen)
        position.append(maze.position)
        steps.append(step)
    reward, terminated, truncated = (np.array(column) for column in zip(*steps, strict=True))
    return {
        "obs": np.array(obs),
        "position": np.array(position),
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated,
    }
