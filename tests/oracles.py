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


# --- Mystery Path ---------------------------------------------------------------------------------------------------


def mystery_path_walls(origin, goal, inner, num_outer, picks):
    """[7, 7] bool, as lists of cells; `picks` index the remaining candidates."""
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
    """[7, 7] bool path of the original's search, with a list, dictionaries and an iterator."""
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
    """One Mystery Path in plain Python. `env` and `params` are read for their settings only."""

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
        """uint8 [84, 84, 3], every pixel asked for every shape."""
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


# --- AGaLiTe ---------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0.0)


AGALITE_ANGLES = {
    "released": lambda r: np.linspace(-np.pi, np.pi, r),
    "paper": lambda r: 2 * np.pi * np.arange(r + 1) / r,
    "delta": lambda r: 2 * np.pi * np.arange(r) / r,
}


def agalite_loop(query, key, value, beta, gamma, p1, p2, p3, reset, r, frequencies, eps=1e-5):
    """out [T, B, H, D]: every frequency kept apart, cosines of the angle itself (arXiv:2310.15719, eq. 34-36)."""
    _, num_rows, num_heads, _ = query.shape
    out = np.zeros(query.shape)
    for b in range(num_rows):
        for h in range(num_heads):
            head = [x[:, b, h] for x in (query, key, value, beta, gamma, p1, p2, p3)]
            out[:, b, h] = agalite_head_loop(*head, reset[:, b], AGALITE_ANGLES[frequencies](r), r, frequencies, eps)
    return out


def agalite_head_loop(query, key, value, beta, gamma, p1, p2, p3, reset, angles, r, frequencies, eps):
    out = np.zeros(value.shape)
    for i in range(len(reset)):
        if reset[i] or i == 0:
            K, V = np.zeros((len(angles), p1.shape[1], key.shape[1])), np.zeros((len(angles), value.shape[1]))
            s, t = np.zeros(K.shape[1:]), 0
        t += 1
        k = np.outer(relu(p1[i]), relu(key[i]))
        q = np.outer(relu(p2[i]), relu(query[i]))
        g = np.outer(sigmoid(p3[i]), sigmoid(gamma[i]))
        b = sigmoid(beta[i])
        for j, angle in enumerate(angles):
            K[j] = (1 - g) * K[j] + np.cos(angle * t) * g * k
            V[j] = (1 - b) * V[j] + np.cos(angle * t) * b * value[i]
        s = (1 - g) * s + g * k
        numerator = sum(V[j] * np.sum(K[j] * q) for j in range(len(angles)))
        if frequencies == "delta":
            out[i] = numerator * (2 / r) / (np.sum(s * q) + eps)
        else:
            out[i] = numerator / (2 * r * np.sum(s * q) + eps)
    return out


# --- GaLiTe ----------------------------------------------------------------------------------------------------------


def elu_plus_one(x):
    return x + 1.0 if x > 0 else np.exp(x)


def galite_features(x, p, name, nu):
    """The list of features of one token x [D]; p [eta] is read by the outer products."""
    if name in ("relu", "elu+1"):
        return [relu(number) if name == "relu" else elu_plus_one(number) for number in x]
    if name == "dpfp":
        both = [relu(number) for number in [*x, *(-x)]]
        return [both[i] * both[(i + shift) % len(both)] for shift in range(1, nu + 1) for i in range(len(both))]
    activation = relu if name == "outer_relu" else elu_plus_one
    return [activation(row) * activation(number) for row in p for number in x]


def galite_feature_gates(gamma, p3, name):
    if name in ("relu", "elu+1"):
        return [sigmoid(number) for number in gamma]
    columns = [*gamma, *gamma] if name == "dpfp" else gamma
    return [sigmoid(row) * sigmoid(number) for row in p3 for number in columns]


def galite_loop(
    query, key, value, beta, gamma, p1, p2, p3, reset, decay, gating="elementwise", feature_map="outer_relu", nu=1,
    eps=1e-10,
):  # fmt: skip
    """out [T, B, H, D], the state of each head one number at a time (arXiv:2310.15719, section 3)."""
    out = np.zeros(value.shape)
    nothing = [0.0] * query.shape[0]
    for b in range(query.shape[1]):
        for h in range(query.shape[2]):
            arrays = [nothing if x is None else x[:, b, h] for x in (query, key, value, beta, gamma, p1, p2, p3)]
            out[:, b, h] = galite_head_loop(*arrays, reset[:, b], decay, gating, feature_map, nu, eps)
    return out


def galite_head_loop(query, key, value, beta, gamma, p1, p2, p3, reset, decay, gating, feature_map, nu, eps):
    out = np.zeros(value.shape)
    for t in range(len(reset)):
        k = galite_features(key[t], p1[t], feature_map, nu)
        q = galite_features(query[t], p2[t], feature_map, nu)
        if t == 0 or reset[t]:
            C, s = np.zeros((value.shape[1], len(k))), np.zeros(len(k))
        for f in range(len(k)):
            if gating == "none":
                s[f] += k[f]
                C[:, f] += [v * k[f] for v in value[t]]
            elif gating == "scalar":
                a = sigmoid(beta[t, 0])
                s[f] = (1 - a) * s[f] + a * k[f]
                C[:, f] = [(1 - a) * c + a * v * k[f] for c, v in zip(C[:, f], value[t], strict=True)]
            else:
                g = galite_feature_gates(gamma[t], p3[t], feature_map)[f]
                s[f] = (1 - g) * s[f] + g * k[f]
                for d, b in enumerate(sigmoid(beta[t])):
                    kept = (1 - b) * (1 - g) if decay == "product" else 1 - b * g
                    C[d, f] = kept * C[d, f] + b * value[t, d] * g * k[f]
        for d in range(value.shape[1]):
            numerator = sum(C[d, f] * q[f] for f in range(len(k)))
            out[t, d] = numerator / (sum(s[f] * q[f] for f in range(len(k))) + eps)
    return out


# --- GRU and LSTM ----------------------------------------------------------------------------------------------------


def gru_loop(inputs, reset, w_in, b_in, w, b_n):
    """h [T, B, D] of a GRU; w_in [D_in, 3 D], w [D, 3 D] in the order reset gate, update gate, candidate."""
    size = w.shape[0]
    outputs = []
    for i in range(len(inputs)):
        if i == 0:
            h = np.zeros((inputs.shape[1], size))
        h = np.where(reset[i][:, None], 0.0, h)
        x, u = inputs[i] @ w_in + b_in, h @ w
        r = sigmoid(x[:, :size] + u[:, :size])
        z = sigmoid(x[:, size : 2 * size] + u[:, size : 2 * size])
        n = np.tanh(x[:, 2 * size :] + r * (u[:, 2 * size :] + b_n))
        h = (1 - z) * n + z * h
        outputs.append(h)
    return np.stack(outputs)


def lstm_loop(inputs, reset, w_in, w, b):
    """h [T, B, D] of an LSTM; columns in the order input gate, forget gate, cell, output gate."""
    size = w.shape[0]
    outputs = []
    for i in range(len(inputs)):
        if i == 0:
            h = c = np.zeros((inputs.shape[1], size))
        h, c = (np.where(reset[i][:, None], 0.0, x) for x in (h, c))
        gates = inputs[i] @ w_in + h @ w + b
        gate_i, gate_f, g, gate_o = (gates[:, k * size : (k + 1) * size] for k in range(4))
        c = sigmoid(gate_f) * c + sigmoid(gate_i) * np.tanh(g)
        h = sigmoid(gate_o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


# --- transformers ----------------------------------------------------------------------------------------------------


def sinusoid(position, size):
    angles = position * 10_000.0 ** (-2.0 * np.arange(size // 2) / size)
    return np.concatenate([np.sin(angles), np.cos(angles)])


def attention_token(query, past, token, memory_len, reader, relative):
    """[H, K]: the mean of the values of a token [D] and of the last memory_len of the list `past`, one by one.

    `reader` holds scale, offset [D] and key, value [D, H, K]; `relative` is None or holds content_bias, position_bias
    [H, K] and distance [D, H, K].
    """
    num_heads, d_head = query.shape
    scale, offset, key, value = reader
    window = [*past[-memory_len:], token]
    out = np.zeros(query.shape)
    for h in range(num_heads):
        scores = []
        for i, x in enumerate(window):
            k = (x * scale + offset) @ key[:, h]
            if relative is None:
                scores.append(query[h] @ k)
            else:
                content_bias, position_bias, distance = relative
                r = sinusoid(len(window) - 1 - i, len(token)) @ distance[:, h]
                scores.append((query[h] + content_bias[h]) @ k + (query[h] + position_bias[h]) @ r)
        weights = np.exp((np.array(scores) - max(scores)) / np.sqrt(d_head))
        for weight, x in zip(weights / weights.sum(), window, strict=True):
            out[h] += weight * ((x * scale + offset) @ value[:, h])
    return out


def attention_loop(query, tokens, reset, memory_len, reader, relative):
    """out [T, B, H, K]; query [T, B, H, K], tokens [T, B, D], reset [T, B]."""
    out = np.zeros(query.shape)
    for b in range(reset.shape[1]):
        past = []
        for t in range(len(reset)):
            if reset[t, b]:
                past = []
            out[t, b] = attention_token(query[t, b], past, tokens[t, b], memory_len, reader, relative)
            past.append(tokens[t, b])
    return out


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def normalise(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def layer_norm(p, x):
    return normalise(x) * p["scale"] + p["bias"]


def gate(p, x, y):
    """GTrXL's: the three matrices of w, the two of u and u_n side by side, each on its own."""
    w_r, w_z, w_n = np.split(p["w"]["kernel"], 3, axis=1)
    u_r, u_z = np.split(p["u"]["kernel"], 2, axis=1)
    r = sigmoid(y @ w_r + x @ u_r)
    z = sigmoid(y @ w_z + x @ u_z - p["bias"])
    return (1 - z) * x + z * np.tanh(y @ w_n + (r * x) @ p["u_n"]["kernel"])


def memory_attention(p, tokens, past, memory_len, num_heads):
    def by_head(kernel):
        return kernel.reshape(*kernel.shape[:-1], num_heads, -1)

    size = len(tokens)
    scale, offset = p.get("scale", np.ones(size)), p.get("offset", np.zeros(size))
    reader = (scale, offset, by_head(p["key"]), by_head(p["value"]))
    relative = (p["content_bias"], p["position_bias"], by_head(p["distance"])) if "distance" in p else None
    query = by_head((tokens * scale + offset) @ p["query"])
    out = attention_token(query, past, tokens, memory_len, reader, relative)
    past.append(tokens)
    return dense(p["out"], out.reshape(-1))


def transformer_block(p, residual, x, past, memory_len, num_heads):
    """out [D] of a token x [D]; appends what the block remembers of it to the list `past`."""
    tokens = normalise(x) if residual == "gated" else x
    attended = memory_attention(p["attention"], tokens, past, memory_len, num_heads)

    def ffc(x):
        return dense(p["ffc"]["out"], relu(dense(p["ffc"]["in"], x)))

    if residual == "gated":
        x = gate(p["gate_attention"], x, relu(attended))
        return gate(p["gate_ffc"], x, relu(ffc(layer_norm(p["LayerNorm_0"], x))))
    if residual == "post_norm":
        x = layer_norm(p["LayerNorm_0"], x + attended)
        return layer_norm(p["LayerNorm_1"], x + ffc(x))
    if residual == "rezero":
        x = x + p["alpha_attention"] * attended
        return x + p["alpha_ffc"] * ffc(x)
    x = gate(p["gate_attention"], x, p["alpha_attention"] * relu(attended))
    return gate(p["gate_ffc"], x, p["alpha_ffc"] * relu(ffc(x)))


def transformer_loop(p, model, inputs, reset):
    """out [T, B, D] of a stack of blocks; `model` is read for its settings only."""
    num_steps, num_rows = reset.shape
    out = np.zeros((num_steps, num_rows, model.d_model))
    for b in range(num_rows):
        for t in range(num_steps):
            if reset[t, b] or t == 0:
                past, start = [[] for _ in range(model.num_layers)], t
            x = relu(dense(p["embed"], inputs[t, b]))
            if model.positions == "absolute":
                x = x + sinusoid(t - start, model.d_model)
            for i in range(model.num_layers):
                x = transformer_block(p[f"block_{i}"], model.residual, x, past[i], model.memory_len, model.num_heads)
            out[t, b] = x
    return out


def adaptive_transformer_loop(p, model, inputs, reset):
    """(out [T, B, D], iterations [T, B]) of one block applied until the halting probabilities add up."""
    num_steps, num_rows = reset.shape
    out, iterations = np.zeros((num_steps, num_rows, model.d_model)), np.zeros((num_steps, num_rows))
    for b in range(num_rows):
        for t in range(num_steps):
            if reset[t, b] or t == 0:
                past, start = [[] for _ in range(model.max_iterations)], t
            x = relu(dense(p["embed"], inputs[t, b]))
            halted, total = False, 0.0
            for n in range(model.max_iterations):
                place = np.zeros(model.d_model)
                if model.positions == "absolute":
                    place = sinusoid(t - start, model.d_model) + sinusoid(n, model.d_model)
                new = transformer_block(
                    p["block"], model.residual, x + place, past[n], model.memory_len, model.num_heads
                )
                if halted:
                    continue  # later tokens see the state it stopped in
                x = new
                probability = sigmoid(dense(p["halting"], x))[0]
                halted = total + probability >= model.halting_threshold or n == model.max_iterations - 1
                out[t, b] += (1.0 - total if halted else probability) * x
                total += probability
                iterations[t, b] = n + 1
    return out, iterations


# --- returns ---------------------------------------------------------------------------------------------------------


def gae_loop(reward, terminated, truncated, value, last_value, gamma, lam):
    """Advantages [T, B] as sums of discounted errors, each written out until its episode ends."""
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
