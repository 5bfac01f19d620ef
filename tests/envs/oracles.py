"""Slow, obvious NumPy twins of the environments. One section per topic."""

from collections import deque

import numpy as np
from PIL import Image

# --- T-Maze ---------------------------------------------------------------------------------------------------------


class TMazeLoop:
    """One T-Maze, stepped in plain Python. Observations lack the distractors."""

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
    """{obs [T+1, D], position [T+1], reward [T], terminated [T], truncated [T]} continuing past the end."""
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


# --- Mystery Path ---------------------------------------------------------------------------------------------------


def mystery_path_walls(origin, goal, inner, num_outer, picks):
    """[7, 7] bool, computed with lists of cells; `picks` index the remaining candidates."""
    walls = np.zeros((7, 7), bool)
    for x in range(1, 5):
        for y in range(1, 5):
            walls[x, y] = inner[x - 1, y - 1] < 33
    candidates = []
    for x in range(7):
        for y in range(7):
            at_border = x in (0, 6) or y in (0, 6)
            near_end = any(abs(x - end[0]) + abs(y - end[1]) <= 1 for end in (origin, goal))
            near_wall = walls[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2].any()
            if at_border and not near_end and not near_wall:
                candidates.append((x, y))
    for pick in picks[:num_outer]:
        if candidates:
            walls[candidates.pop(pick % len(candidates))] = True
    return walls


def mystery_path_search(walls, origin, goal, noise):
    """[7, 7] bool, the path of the original's search, computed with a list, dictionaries and an iterator."""
    origin, goal, noise = tuple(map(int, origin)), tuple(map(int, goal)), map(int, noise)
    listed, closed, parent = [origin], set(), {}
    cost, priority = {origin: 0}, {origin: 0.0}
    while True:
        current = listed[0]
        for cell in listed:
            if priority[cell] < priority[listed[0]]:
                current = cell
                break
        if current == goal:
            break
        listed.remove(current)
        closed.add(current)
        for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            cell = (current[0] + step[0], current[1] + step[1])
            if not (0 <= cell[0] < 7 and 0 <= cell[1] < 7) or cell in closed or walls[cell]:
                continue
            new_cost = cost[current] + next(noise)
            if cell not in listed:
                listed.append(cell)
                cost[cell], parent[cell] = new_cost, current
                priority[cell] = new_cost + np.hypot(cell[0] - goal[0], cell[1] - goal[1])
            elif new_cost < cost[cell]:
                parent[cell] = current
    path = np.zeros((7, 7), bool)
    while goal != origin:
        path[goal] = True
        goal = parent[goal]
    path[origin] = True
    return path


class MysteryPathLoop:
    """One Mystery Path in plain Python. It takes only settings from `env` and `params`."""

    def __init__(self, env, params, path, origin, goal):
        self.env, self.params = env, params
        self.path, self.origin, self.goal = path, tuple(origin), tuple(goal)
        self.center = [12 * origin[0] + 6, 12 * origin[1] + 6]
        self.rotation, self.off_path, self.num_fails, self.time = 0, False, 0, 0
        self.visited = set()

    def step(self, action):
        """(reward, terminated, truncated)"""
        if self.off_path:
            self.center = [12 * self.origin[0] + 6, 12 * self.origin[1] + 6]
        elif self.env.variant == "grid":
            self._walk(action)
        else:
            self._glide(action)
        cell = (self.center[0] // 12, self.center[1] // 12)
        reward, reached = self.params.reward_step, cell == self.goal
        self.off_path = not reached and not self.path[cell]
        if reached:
            reward += self.params.reward_goal
        elif self.off_path:
            reward += self.params.reward_fall_off
            self.num_fails += 1
        elif cell != self.origin and cell not in self.visited:
            reward += self.params.reward_path_progress
            self.visited.add(cell)
        self.time += 1
        return reward, reached, self.time >= self.params.time_limit and not reached

    def _walk(self, action):
        if action == 3:
            step = {0: (0, -12), 90: (-12, 0), 180: (0, 12), 270: (12, 0)}[self.rotation]
            self.center = [min(max(self.center[i] + step[i], 6), 78) for i in range(2)]
        self.rotation = (self.rotation + {1: 90, 2: -90}.get(action, 0)) % 360

    def _glide(self, action):
        direction = [(0, -1, 1)[action // 3], (0, -1, 1)[action % 3]]
        length = max(np.hypot(*direction), 1.0)
        step = [int(self.params.agent_speed * component / length) for component in direction]
        self.center = [min(max(self.center[i] + step[i], 6), 78) for i in range(2)]
        if action:
            facing = {(0, -1): 0, (-1, -1): 45, (-1, 0): 90, (-1, 1): 135, (0, 1): 180, (1, 1): 225, (1, 0): 270}
            self.rotation = facing.get(tuple(direction), 315)

    def frame(self):
        """uint8 [84, 84, 3]; tests every pixel against every shape."""
        x, y = np.arange(84)[:, None], np.arange(84)[None, :]
        image = np.zeros((84, 84, 3), np.uint8)
        for cell, shown, color in (
            (self.origin, self.env.show_origin, (0, 0, 255)),
            (self.goal, self.env.show_goal, (0, 255, 0)),
        ):
            image[(x // 12 == cell[0]) & (y // 12 == cell[1]) & shown] = color
        hands = {
            0: ((-4, -4), (4, -4)),
            45: ((-6, 0), (-1, -6)),
            90: ((-4, 4), (-4, -4)),
            135: ((0, 5), (-6, 0)),
            180: ((4, 4), (-4, 4)),
            225: ((5, 0), (0, 5)),
            270: ((4, -4), (4, 4)),
            315: ((0, -6), (5, 0)),
        }[self.rotation]
        shapes = [((0, 0), 7, 6, (250, 204, 153)), *((hand, 2, 2, (50, 50, 50)) for hand in hands)]
        for offset, sum_bound, bound, color in shapes:
            across = abs(x - (self.center[0] + offset[0] - 0.5))
            down = abs(y - (self.center[1] + offset[1] - 0.5))
            image[(across + down <= sum_bound) & (np.maximum(across, down) <= bound)] = color
        if self.off_path and self.env.visual_feedback:
            for u in range(10):
                for v in range(10):
                    if abs(u - v) <= 1 or abs(u + v - 9) <= 1:
                        image[self.center[0] - 5 + u, self.center[1] - 5 + v] = (255, 0, 0)
        return image


# --- memory chains --------------------------------------------------------------------------------------------------


def memory_chain_episode(memory_length, context, query, actions):
    """(obs [T+1, 2 + num_bits], reward [T], terminated [T]) of bsuite's MemoryChain; T = memory_length + 1."""

    def observation(time):
        asked = query if time == memory_length - 1 else 0
        bits = [2 * bit - 1 if time == 0 else 0 for bit in context]
        return [1 - time / memory_length, asked, *bits]

    obs, reward, terminated = [observation(0)], [], []
    for time, action in enumerate(actions):
        obs.append(observation(time))
        last = time == memory_length
        reward.append((1.0 if action == context[query] else -1.0) if last else 0.0)
        terminated.append(last)
    return np.array(obs, np.float32), np.array(reward, np.float32), np.array(terminated)


def distributed_memory_episode(memory_length, context, context_timesteps, actions):
    """(obs [T+1, 2 + num_bits], reward [T], terminated [T]) of the distributed task; T = memory_length."""
    obs, reward, terminated = [], [], []
    for time in range(memory_length + 1):
        bits = [2 * bit - 1 if when == time else 0 for bit, when in zip(context, context_timesteps, strict=True)]
        obs.append([1 - time / memory_length, 0, *bits])
    majority = max(set(context), key=list(context).count)
    for time, action in enumerate(actions):
        last = time == memory_length - 1
        reward.append((1.0 if action == majority else -1.0) if last else 0.0)
        terminated.append(last)
    return np.array(obs, np.float32), np.array(reward, np.float32), np.array(terminated)


# --- Memory Maze ----------------------------------------------------------------------------------------------------


class MemoryMazeLoop:
    """The body of one Memory Maze in plain Python: position, velocity, heading and yaw rate in double precision."""

    def __init__(self, is_open, position, velocity, heading, yaw_rate):
        self.is_open, self.n = is_open, len(is_open)
        self.p, self.v = np.array(position, float), np.array(velocity, float)
        self.heading, self.yaw_rate = float(heading), float(yaw_rate)

    def step(self, action):
        """Moves for 0.25 s; returns the places after each of the 10 inner steps, [10, 2]."""
        drive, turn = {0: (0, 0), 1: (1, 0), 2: (0, 1), 3: (0, -1), 4: (1, 1), 5: (1, -1)}[int(action)]
        places, touching = [], False
        for _ in range(10):
            self._glide(drive, turn, touching)
            touching = self._collide()
            places.append(self.p.copy())
        return np.array(places)

    def _glide(self, drive, turn, touching):
        dt = 0.025
        ahead = np.array([np.cos(self.heading), np.sin(self.heading)])
        left = np.array([-ahead[1], ahead[0]])
        forward, sideways = self.v @ ahead, self.v @ left
        self._turn(turn, dt)
        tau = 0.154 if abs(self.yaw_rate) <= 0.05 else 0.224
        gained = (2 * drive - forward) * (1 - np.exp(-dt / tau))
        gained = min(max(gained, -7.3 * dt), (4.2 if touching else 7.3) * dt)
        lost = min(abs(sideways), (4.2 if touching else 9.81) * dt)
        ahead = np.array([np.cos(self.heading), np.sin(self.heading)])
        left = np.array([-ahead[1], ahead[0]])
        v = (forward + gained) * ahead + (sideways - np.sign(sideways) * lost) * left
        self.p += dt * (self.v + v) / 2
        self.v = v

    def _turn(self, turn, dt):
        T, rate = 1.18 / 20, self.yaw_rate
        sign = np.sign(turn) if abs(rate) < 1e-6 else np.sign(rate)
        limit = (30 * turn - 4.28 * sign) / 20
        after = limit + (rate - limit) * np.exp(-dt / T)
        if after * sign < 0:  # it comes to rest within the step, and starts towards `turn` from there
            stop = T * np.log((rate - limit) / -limit)
            self.heading += stop * limit + rate * T
            dt, rate = dt - stop, 0.0
            limit = np.sign(turn) * (30 - 4.28) / 20
            after = limit * (1 - np.exp(-dt / T))
        self.heading += dt * limit + (rate - limit) * T * (1 - np.exp(-dt / T))
        self.yaw_rate = after

    def _collide(self):
        column = int(np.round(self.p[0] / 2 + (self.n - 1) / 2))
        row = int(np.round((self.n - 1) / 2 - self.p[1] / 2))
        centre = np.array([2 * (column - (self.n - 1) / 2), -2 * (row - (self.n - 1) / 2)])
        away = self.p - centre
        east, north = (1 if away[0] >= 0 else -1), (1 if away[1] >= 0 else -1)
        wall_x = not self.is_open[row, column + east]
        wall_y = not self.is_open[row - north, column]
        contacts = []
        if wall_x:
            contacts.append((np.array([-east, 0.0]), 0.2023 - (1 - abs(away[0]))))
        if wall_y:
            contacts.append((np.array([0.0, -north]), 0.2023 - (1 - abs(away[1]))))
        if not wall_x and not wall_y and not self.is_open[row - north, column + east]:
            from_corner = self.p - (centre + np.array([east, north]))
            contacts.append((from_corner / np.linalg.norm(from_corner), 0.2023 - np.linalg.norm(from_corner)))
        touching = False
        for normal, depth in contacts:
            if depth > 0:
                touching |= self._bounce(normal, depth)
        return touching

    def _bounce(self, normal, depth):
        r, k = 0.2023, 22 * 0.2023 / 1.18
        tangent = np.array([-normal[1], normal[0]])
        self.p += depth * normal
        push = max(-self.v @ normal, 0.0)
        self.v += push * normal
        slip = self.v @ tangent - r * self.yaw_rate
        bound = 1.5 * push * abs(slip) / np.sqrt(slip**2 + 0.43**2)
        along = -min(max(slip / (1 + k * r), -bound), bound)
        self.v += along * tangent
        self.yaw_rate -= k * along
        return push > 0


def memory_maze_classes(size, position, heading, is_open, targets):
    """[64, 64] what each pixel shows, by following every ray in steps of 5 mm."""
    n, pitch, half = size + 2, np.arctan(0.1), np.tan(np.radians(40))
    ahead = np.array([np.cos(heading), np.sin(heading)])
    right = np.array([ahead[1], -ahead[0]])
    x = (2 * (np.arange(64) + 0.5) / 64 - 1) * half
    across, above = np.meshgrid(x, -x)
    a, e = np.cos(pitch) + above * np.sin(pitch), -np.sin(pitch) + above * np.cos(pitch)
    ray = np.concatenate([a[..., None] * ahead + across[..., None] * right, e[..., None]], axis=-1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    eye = np.array([*(position + 0.15 * ahead), 0.8997])
    seen = np.full((64, 64), -1)
    for step in range(1, int(2 * n * 1.5 / 0.005)):
        point = eye + 0.005 * step * ray
        column = np.clip(np.floor(point[..., 0] / 2 + n / 2).astype(int), 0, n - 1)
        row = np.clip(np.floor(n / 2 - point[..., 1] / 2).astype(int), 0, n - 1)
        found = np.where(~is_open[row, column] & (point[..., 2] <= 1.5), 2, -1)
        for i, (r, c) in enumerate(targets):
            centre = np.array([2 * (c - (n - 1) / 2), -2 * (r - (n - 1) / 2), 0])
            found = np.where(np.linalg.norm(point - centre, axis=-1) <= 0.6, 3 + i, found)
        found = np.where(point[..., 2] <= 0, 1, found)
        seen = np.where(seen < 0, found, seen)
        if ((seen >= 0) | (e > 0) & (point[..., 2] > 1.5)).all():
            break
    return np.where(seen < 0, 0, seen)


def memory_maze_path(is_open, start, goal):
    """[n, n] bool: the cells of the path that breadth-first search finds, looking west, east, south and north."""
    came_from, queue = {start: start}, deque([start])
    while queue:
        row, column = cell = queue.popleft()
        for after in ((row, column - 1), (row, column + 1), (row + 1, column), (row - 1, column)):
            if is_open[after] and after not in came_from:
                came_from[after] = cell
                queue.append(after)
    path = np.zeros_like(is_open)
    if goal in came_from:
        path[goal] = True
        while goal != start:
            goal = came_from[goal]
            path[goal] = True
    return path


def memory_maze_minimap(is_open, path, position, heading):
    """[2 size, 2 size, 3] the map of the Oracle variants, before it is mixed with the picture; Pillow moves it.

    The agent is in the middle and looks upwards; each cell is 2 pixels wide.
    """
    n = len(is_open)
    east, south = position[0] / 2, -position[1] / 2  # in cells, from the middle
    colors = np.where(path[..., None], (0, 255, 0), np.where(is_open[..., None], 255, 0)).astype(np.uint8)
    colors[int(n / 2 + south), int(n / 2 + east)] = (255, 0, 0)
    large = Image.fromarray(colors[1:-1, 1:-1].repeat(2, axis=0).repeat(2, axis=1))
    moved = large.transform(large.size, Image.Transform.AFFINE, (1, 0, 2 * east, 0, 1, 2 * south))
    return np.asarray(moved.rotate(90 - np.degrees(heading)))
