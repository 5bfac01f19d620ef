"""An agent at play, in every task that can be drawn: one frame per state, with the action written below it."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.envs.spaces import Box
from src_pure.envs.vector import VectorEnv
from src_pure.errors import ConfigError
from src_pure.models.encoders import Flatten
from src_pure.models.policy import ActorCritic
from src_pure.models.rnn import GRU
from src_pure.results import watching
from src_pure.results.watching import player, write_gif
from tests.probes import Aim

TASKS = {
    "tmaze": ["task.corridor_len=4", "task.time_limit=5"],
    "mysterypath": ["task.time_limit=6", "task.observation=symbolic"],
    "bsuite": ["task.memory_length=4"],
    "craftax": ["task.env_name=Craftax-Classic-Symbolic-v1", "task.time_limit=5"],
}


def experiment(task, *options):
    return build(compose([f"task={task}", *TASKS[task], "model=gru", "model.size=8", "policy.head_size=8", *options]))


@pytest.fixture
def said(monkeypatch):
    """Lines below each frame, in order."""
    lines, frame = [], watching.frame
    monkeypatch.setattr(watching, "frame", lambda picture, text: lines.append(text) or frame(picture, text))
    return lines


@pytest.mark.parametrize(
    "task", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("craftax", "mysterypath"))) for name in TASKS]
)
def test_every_state_is_a_frame(task, said, tmp_path):
    frames = player(experiment(task, "observation.last_action=true"), None, False, 100)(jax.random.key(0))
    assert [line[0].split("   ")[0] for line in said] == [f"step {step}" for step in range(len(frames))]
    assert said[-1][1] == "end of the episode"
    assert len(frames) <= 7
    write_gif([frames, frames], tmp_path / "plots" / "play.gif")
    with Image.open(tmp_path / "plots" / "play.gif") as gif:
        assert gif.n_frames == 2 * len(frames)
        assert gif.width >= watching.WIDTH


@pytest.mark.parametrize(
    ("shape", "size"),
    [((48, 16), (384, 384)), ((64, 128), (384, 192)), ((336, 336), (384, 336)), ((48, 640), (640, 48))],
)
def test_pictures_are_enlarged_until_the_longer_side_fills_the_frame(shape, size):
    image = watching.frame(np.zeros((*shape, 3), np.uint8), ["step 0"])
    assert image.size == (size[0], size[1] + watching.LINE + watching.LINE // 2)


def test_it_shows_what_the_agent_does_and_has_to_remember(said):
    """In a corridor of one cell an action up or down ends the episode: the lines add up."""
    built = experiment("tmaze", "task.corridor_len=1")
    obs = jax.numpy.zeros((1, 1, 16))
    params = built.policy.init(jax.random.key(0), built.policy.initialize_carry(1), obs, obs[..., 0] == 0)
    player(built, params, True, 3)(jax.random.key(3))
    obs, _ = built.env.env.reset_env(jax.random.split(jax.random.key(3))[0], built.env.params)
    _, output = built.policy.apply(
        params, built.policy.initialize_carry(1), obs[None, None], jax.numpy.ones((1, 1), bool)
    )
    first, last = said[0], said[-1]
    action, value = first[1].removeprefix("action ").split("   value ")
    assert action in ("up", "down", "left", "right") and float(value) == pytest.approx(
        float(output.value[0, 0]), abs=0.005
    )
    cue = first[2].removeprefix("cue: ")
    if action in ("up", "down"):
        assert (
            last[0] == f"step 1   reward {4 if action == cue else -1:+.2f}   return {4 if action == cue else -1:+.2f}"
        )
    else:
        assert last[1] == "cut off after 3 steps"


class RenderedAim(Aim):
    """An episode of one step whose action must lie within 0.01."""

    def action_space(self, params):
        return Box(-0.01, 0.01, (2,))

    def render(self, state, params):
        return jax.numpy.zeros((8, 8, 3), jax.numpy.uint8)


def test_a_vector_is_shown_as_it_acted(said):
    """Clipped to the action space."""
    env = VectorEnv(RenderedAim(), (), 1)
    policy = ActorCritic(Flatten(), GRU(4), 2, head_size=None, continuous=True)
    built = replace(experiment("tmaze"), env=env, policy=policy)
    obs = jax.numpy.zeros((1, 1, 1))
    params = policy.init(jax.random.key(0), policy.initialize_carry(1), obs, obs[..., 0] == 0)
    player(built, params, False, 3)(jax.random.key(0))
    action = said[0][1].removeprefix("action [").partition("]")[0].split()
    assert [abs(float(x)) for x in action] == [0.01, 0.01]


def test_what_has_no_pictures_is_refused():
    built = build(compose(["task=gymnax", "model=mlp"]))
    with pytest.raises(ConfigError, match="Gymnax has no render"):
        player(built, None, False, 3)
