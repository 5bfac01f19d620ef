"""Slow, obvious NumPy twins of the layers mLSTM, sLSTM, Mamba-2 and Gated DeltaNet: out [T, B, D] from parameters p."""

import numpy as np

from tests.models.oracles import dense, sigmoid


def softplus(x):
    return np.log1p(np.exp(x))


def silu(x):
    return x * sigmoid(x)


def per_row(layer):
    """The layer of one row, inputs [T, D_in] and reset [T], for every row."""

    def loop(p, num_heads, inputs, reset):
        return np.stack([layer(p, num_heads, inputs[:, b], reset[:, b]) for b in range(reset.shape[1])], axis=1)

    return loop


def head_norm(x, scale):
    """LayerNorm of each row of [H, D], with a scale and no offset."""
    centred = x - x.mean(-1, keepdims=True)
    return scale * centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def mlstm_memory(query, key, value, i, f, reset, eps=1e-6):
    """out [T, H, D] without the stabiliser in the memory: only eps is scaled by it."""
    out = np.zeros(value.shape)
    num_heads, size = value.shape[1:]
    for t in range(len(reset)):
        if t == 0 or reset[t]:
            C, n, m = np.zeros((num_heads, size, size)), np.zeros((num_heads, size)), np.zeros(num_heads)
        for h in range(num_heads):
            k, forget, write = key[t, h] / np.sqrt(size), sigmoid(f[t, h]), np.exp(i[t, h])
            C[h] = forget * C[h] + write * np.outer(value[t, h], k)
            n[h] = forget * n[h] + write * k
            m[h] = max(np.log(forget) + m[h], i[t, h])
            out[t, h] = C[h] @ query[t, h] / (max(abs(n[h] @ query[t, h]), 1.0) + eps * np.exp(m[h]))
    return out


@per_row
def mlstm_loop(p, num_heads, inputs, reset):
    tokens = dense(p["qkvo"], inputs).reshape(len(inputs), num_heads, -1)
    query, key, value, output_gate = np.split(tokens, 4, axis=-1)
    i, f = np.split(inputs @ p["gates"]["kernel"], 2, axis=-1)
    out = mlstm_memory(query, key, value, i + p["input_bias"], f + p["forget_bias"], reset)
    out = sigmoid(output_gate) * np.stack([head_norm(x, p["scale"]) for x in out])
    return dense(p["out"], out.reshape(len(inputs), -1))


@per_row
def slstm_loop(p, num_heads, inputs, reset):
    """Without the stabiliser."""
    x = (inputs @ p["inputs"]["kernel"]).reshape(len(inputs), num_heads, -1)
    outputs = []
    for t in range(len(inputs)):
        if t == 0 or reset[t]:
            h = c = n = np.zeros((num_heads, x.shape[-1] // 4))
        gates = np.stack([x[t, k] + h[k] @ p["kernel"][:, k] + p["bias"][k] for k in range(num_heads)])
        i, f, z, o = np.split(gates, 4, axis=-1)
        c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
        n = sigmoid(f) * n + np.exp(i)
        h = sigmoid(o) * c / n
        outputs.append(dense(p["out"], head_norm(h, p["scale"]).ravel()))
    return np.stack(outputs)


def convolution(p, x, reset):
    """silu of each feature's sum over the last four steps of its episode."""
    out = np.zeros(x.shape)
    for t in range(len(x)):
        for j in range(4):
            if t - j >= 0 and not np.any(reset[t - j + 1 : t + 1]):
                out[t] += p["kernel"][j] * x[t - j]
    return silu(out + p.get("bias", 0.0))


def rms(x):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)


@per_row
def mamba2_loop(p, num_heads, inputs, reset):
    size = len(p["scale"])
    projected = inputs @ p["inputs"]["kernel"]
    gate, tokens = projected[:, :size], convolution(p["convolution"], projected[:, size:], reset)
    value, key, query = np.split(tokens, [size, (size + tokens.shape[1]) // 2], axis=-1)
    step = softplus(inputs @ p["steps"]["kernel"] + p["step"]["bias"])
    outputs = []
    for t in range(len(inputs)):
        if t == 0 or reset[t]:
            S = np.zeros((num_heads, size // num_heads, key.shape[1]))
        v = value[t].reshape(num_heads, -1)
        y = np.zeros(v.shape)
        for h in range(num_heads):
            S[h] = np.exp(-np.exp(p["step"]["log_rate"][h]) * step[t, h]) * S[h] + step[t, h] * np.outer(v[h], key[t])
            y[h] = S[h] @ query[t] + p["skip"][h] * v[h]
        outputs.append(p["scale"] * rms(y.ravel() * silu(gate[t])) @ p["out"]["kernel"])
    return np.stack(outputs)


@per_row
def gated_deltanet_loop(p, num_heads, inputs, reset):
    size = num_heads * len(p["scale"])
    projected = inputs @ p["qkv_gate"]["kernel"]
    tokens, gate = convolution(p["convolution"], projected[:, :-size], reset), projected[:, -size:]
    keys = (tokens.shape[1] - size) // 2
    query, key, value = (x.reshape(len(inputs), num_heads, -1) for x in np.split(tokens, [keys, 2 * keys], axis=-1))
    b, a = np.split(inputs @ p["rates"]["kernel"], 2, axis=-1)
    decay = np.exp(-np.exp(p["step"]["log_rate"]) * softplus(a + p["step"]["bias"]))
    outputs = []
    for t in range(len(inputs)):
        if t == 0 or reset[t]:
            S = np.zeros((num_heads, len(p["scale"]), key.shape[-1]))
        y = np.zeros(value.shape[1:])
        for h in range(num_heads):
            k = key[t, h] / np.sqrt(np.sum(key[t, h] ** 2) + 1e-6)
            q = query[t, h] / np.sqrt(np.sum(query[t, h] ** 2) + 1e-6) / np.sqrt(key.shape[-1])
            rate = sigmoid(b[t, h])
            S[h] = decay[t, h] * S[h] @ (np.eye(len(k)) - rate * np.outer(k, k)) + rate * np.outer(value[t, h], k)
            y[h] = S[h] @ q
        outputs.append(((p["scale"] * rms(y)).ravel() * silu(gate[t])) @ p["out"]["kernel"])
    return np.stack(outputs)
