"""Slow, obvious NumPy twins of the memory models. One section per topic."""

import numpy as np

from tests.ops.oracles import attention_token, sinusoid

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


# --- MinGRU ----------------------------------------------------------------------------------------------------------


def mingru_layer_loop(p, model, inputs, reset):
    """h [T, B, D] of one layer; of `model`, only the settings are read."""
    width = model.expansion * model.size
    out = np.zeros((*reset.shape, model.size))
    for b in range(reset.shape[1]):
        for t in range(len(reset)):
            if reset[t, b] or t == 0:
                h = np.zeros(width)
            raw = inputs[t, b] @ p["inputs"]["kernel"] + p["inputs"].get("bias", 0.0)
            candidate = [c + 0.5 if c >= 0 else sigmoid(c) for c in raw[:width]]
            z = sigmoid(raw[width : 2 * width])
            h = (1 - z) * h + z * candidate
            out[t, b] = h @ p["out"]["kernel"] if model.expansion > 1 else h
            if model.residual == "highway":
                gate = sigmoid(raw[2 * width :])
                out[t, b] = gate * out[t, b] + (1 - gate) * inputs[t, b]
    return out


def mingru_loop(p, model, inputs, reset):
    x = relu(inputs @ p["embed"]["kernel"] + p["embed"]["bias"]) if model.residual == "highway" else inputs
    for i in range(model.num_layers):
        x = mingru_layer_loop(p[f"layer_{i}"], model, x, reset)
    return x


# --- complex states ---------------------------------------------------------------------------------------------------


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def into_complex(kernel):
    re, im = np.split(kernel, 2, axis=1)
    return re + 1j * im


def out_of_complex(kernel):
    re, im = np.split(kernel, 2)
    return re - 1j * im


def lru_step(p, h, x):
    """(h, y) of one token, from the state before."""
    h = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"])) * h + np.exp(p["gamma"]) * (
        x @ into_complex(p["in"]["kernel"])
    )
    return h, (h @ out_of_complex(p["out"]["kernel"])).real + p["skip"] * x


def s5_step(p, h, x):
    eigenvalues, delta = -np.exp(p["log_decay"]) + 1j * p["imaginary"], np.exp(p["log_delta"])
    decay = np.exp(eigenvalues * delta)
    h = decay * h + (decay - 1.0) / eigenvalues * (x @ into_complex(p["in"]["kernel"]))
    return h, 2.0 * (h @ out_of_complex(p["out"]["kernel"])).real + p["skip"] * x


def glu_stack_loop(p, step, num_layers, inputs, reset):
    """out [T, B, D] of residual layers around lru_step or s5_step."""
    x = relu(dense(p["embed"], inputs))
    for block in (p[f"block_{i}"] for i in range(num_layers)):
        out = np.zeros(x.shape)
        for b in range(reset.shape[1]):
            for t in range(len(reset)):
                if reset[t, b] or t == 0:
                    h = 0.0
                h, y = step(block["memory"], h, layer_norm(block["LayerNorm_0"], x[t, b]))
                left, right = np.split(dense(block["glu"], gelu(y)), 2)
                out[t, b] = x[t, b] + left * sigmoid(right)
        x = out
    return x


def rtu_loop(p, recurrence, inputs, reset):
    decay = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    out = np.zeros((*reset.shape, 2 * len(decay)))
    for b in range(reset.shape[1]):
        for t in range(len(reset)):
            if reset[t, b] or t == 0:
                h = 0.0
            x = relu(dense(p["embed"], inputs[t, b])) @ into_complex(p["in"]["kernel"])
            h = decay * h + np.sqrt(1.0 - np.abs(decay) ** 2) * x
            rectified = relu(h.real) + 1j * relu(h.imag)
            h = rectified if recurrence == "nonlinear" else h
            out[t, b] = [*rectified.real, *rectified.imag]
    return out


def ffm_loop(p, inputs, reset):
    m, width = len(p["trace"]), len(p["mix_re"]["bias"])
    decay = np.exp(np.minimum(p["trace"], -1e-6)[:, None] + 1j * p["frequency"])
    out = np.zeros((*reset.shape, width))
    for b in range(reset.shape[1]):
        for t in range(len(reset)):
            if reset[t, b] or t == 0:
                state = np.zeros(decay.shape)
            written, through, gate_in, gate_out = np.split(
                dense(p["inputs"], inputs[t, b]), [m, m + width, 2 * m + width]
            )
            state = decay * state + (written * sigmoid(gate_in))[:, None]
            read = dense(p["mix_re"], state.real.ravel()) + state.imag.ravel() @ p["mix_im"]["kernel"]
            gate = sigmoid(gate_out)
            out[t, b] = gate * normalise(read) + (1.0 - gate) * through
    return out


# --- transformers ----------------------------------------------------------------------------------------------------


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def normalise(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def layer_norm(p, x):
    return normalise(x) * p["scale"] + p["bias"]


def gate(p, x, y):
    """The gate of GTrXL, with the three matrices of w, the two of u, and u_n."""
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


def residual_block(p, residual, x, attention, ffc, attention_norm, ffc_norm):
    """out [D] of a token x [D]: the equations of models/blocks.py, with attention, ffc and their norms as functions."""
    if residual == "gated":
        x = gate(p["gate_attention"], x, relu(attention(attention_norm(x))))
        return gate(p["gate_ffc"], x, relu(ffc(ffc_norm(x))))
    if residual == "pre_norm":
        x = x + relu(attention(attention_norm(x)))
        return x + relu(ffc(ffc_norm(x)))
    if residual == "post_norm":
        x = layer_norm(p["LayerNorm_0"], x + attention(x))
        return layer_norm(p["LayerNorm_1"], x + ffc(x))
    if residual == "rezero":
        x = x + p["alpha_attention"] * attention(x)
        return x + p["alpha_ffc"] * ffc(x)
    x = gate(p["gate_attention"], x, p["alpha_attention"] * relu(attention(x)))
    return gate(p["gate_ffc"], x, p["alpha_ffc"] * relu(ffc(x)))


def transformer_block(p, residual, x, past, memory_len, num_heads):
    """out [D] of a token x [D]; appends what the block remembers of it to the list `past`."""

    def attention(tokens):
        return memory_attention(p["attention"], tokens, past, memory_len, num_heads)

    def ffc(x):
        return dense(p["ffc"]["out"], relu(dense(p["ffc"]["in"], x)))

    def ffc_norm(x):
        return layer_norm(p["LayerNorm_0"], x)

    return residual_block(p, residual, x, attention, ffc, normalise, ffc_norm)


def transformer_loop(p, model, inputs, reset):
    """out [T, B, D] of a stack of blocks; of `model`, only the settings are read."""
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
