"""Slow, obvious NumPy twins of attention."""

import numpy as np


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


def decay_loop(state, inputs):
    """(last state, readout [T, B, H, D]) of ops/scalar_decay.py, or ops/delta_rule.py if there is a rate; float64."""
    x = inputs._replace(**{name: np.float64(array) for name, array in inputs._asdict().items()})
    state, readout = np.float64(state), np.zeros(x.value.shape)
    group = x.value.shape[2] // x.key.shape[2]
    for t, b, h in np.ndindex(*x.value.shape[:3]):
        value, key, query = x.value[t, b, h], x.key[t, b, h // group], x.query[t, b, h // group]
        matrix = (1.0 - x.reset[t, b]) * np.exp(x.log_decay[t, b, h]) * state[b, h]
        if hasattr(x, "rate"):
            matrix = matrix @ (np.eye(len(key)) - x.rate[t, b, h] * np.outer(key, key))
            value = x.rate[t, b, h] * value
        state[b, h] = matrix + np.outer(value, key)
        readout[t, b, h] = state[b, h] @ query
    return state, readout
