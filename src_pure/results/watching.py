"""Episodes as a GIF: the rendered environment above the action, reward and predicted value of every step."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src_pure.bits import in_32_bits
from src_pure.build import Experiment
from src_pure.envs import optional
from src_pure.runs.atomic import replacing
from src_pure.runs.policies import decide
from src_pure.types import Key, Params

WIDTH = 384  # pixels; pictures are enlarged by an integer factor until their longer side is about this long
LINE = 18  # pixels per line of text
FRAME_MS, LAST_FRAME_MS = 150, 1200


def player(
    experiment: Experiment, params: Params | None, greedy: bool, max_steps: int
) -> Callable[[Key], list[Image.Image]]:
    """play(key) -> the frames of one episode, including start and end; params None: random actions.

    Compiles at the first episode. Raises ConfigError if the environment cannot be rendered.
    """
    env, env_params, policy = experiment.env.env, experiment.env.params, experiment.policy
    action_space = env.action_space(env_params)
    names = optional.action_names(env)
    reset, step, render = jax.jit(env.reset_env), jax.jit(env.step_env), jax.jit(partial(optional.render, env))
    jax.eval_shape(in_32_bits(lambda key: render(reset(key, env_params)[1], env_params)), jax.random.key(0))

    @jax.jit
    def choose(key, carry, obs, first):
        if params is None:
            return carry, action_space.sample(key), jnp.nan
        carry, action, output = decide(experiment, params, None if greedy else key, carry, obs[None], first[None])
        return carry, action[0], output.value[0]

    @in_32_bits
    def play(key: Key) -> list[Image.Image]:
        key_reset, key = jax.random.split(key)
        obs, state = reset(key_reset, env_params)
        carry, reward, total, finished = policy.initialize_carry(1), 0.0, 0.0, False
        frames = []
        for time in range(max_steps + 1):
            key_action, key_env, key = jax.random.split(key, 3)
            carry, action, value = choose(key_action, carry, obs, jnp.bool_(time == 0))
            last = finished or time == max_steps
            lines = [f"step {time}   reward {reward:+.2f}   return {total:+.2f}"]
            if last:
                lines.append("end of the episode" if finished else f"cut off after {max_steps} steps")
            else:
                name = names[int(action)] if names else str(np.asarray(action))
                lines.append(f"action {name}" + ("" if params is None else f"   value {float(value):+.2f}"))
            if caption := optional.caption(env, jax.device_get(state)):
                lines.append(caption)
            frames.append(frame(np.asarray(render(state, env_params)), lines))
            if last:
                break
            obs, state, reward, terminated, truncated, _ = step(key_env, state, action, env_params)
            reward, finished = float(reward), bool(terminated | truncated)
            total += reward
        return frames

    return play


def frame(picture: np.ndarray, lines: Sequence[str]) -> Image.Image:
    """A frame: the picture, uint8 [height, width, 3], enlarged, above lines of text."""
    scale = max(1, WIDTH // max(picture.shape[:2]))
    picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = picture.shape[:2]
    image = Image.new("RGB", (max(width, WIDTH), height + LINE * len(lines) + LINE // 2), "white")
    image.paste(Image.fromarray(picture), ((image.width - width) // 2, 0))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=14)
    for number, line in enumerate(lines):
        draw.text((8, height + 4 + LINE * number), line, fill="black", font=font)
    return image.convert("P", palette=Image.Palette.ADAPTIVE)  # the form that GIFs use, in a third of the memory


def write_gif(episodes: Sequence[Sequence[Image.Image]], path: Path) -> None:
    """Writes the episodes one after another; the last frame of each stays longer."""
    frames = [image for episode in episodes for image in episode]
    durations = [ms for episode in episodes for ms in [FRAME_MS] * (len(episode) - 1) + [LAST_FRAME_MS]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
