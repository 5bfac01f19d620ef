import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from src_pure.envs.mystery_path import MysteryPath, MysteryPathParams
from src_pure.envs.mystery_path_layout import BOTTOM, LEFT, RIGHT, TOP
from src_pure.envs.mystery_path_names import mystery_path_task
from src_pure.envs.spaces import Box, Discrete
from tests.envs import oracles

RECORDED = ("grid_default", "grid_easy", "grid_variants", "cont_default", "cont_easy", "cont_variants")
NAMES = {  # of parameters, here and in the recordings
    "time_limit": "opt_max_steps",
    "reward_goal": "opt_reward_goal",
    "reward_fall_off": "opt_reward_fall_off",
    "reward_path_progress": "opt_reward_path_progress",
    "reward_step": "opt_reward_step",
    "agent_speed": "opt_agent_speed",
}
PATH = np.zeros((7, 7), bool)
PATH[[0, 1, 2, 2, 2, 3, 4, 5, 6], [3, 3, 3, 2, 1, 1, 1, 1, 1]] = True  # right, up, right
ORIGIN, GOAL = np.array([0, 3]), np.array([6, 1])


def play(env, params, layout, actions):
    """One episode with `actions` [T], continuing past its end: states [T+1] and the results of each step [T]."""

    def step(state, action):
        _, state, reward, terminated, truncated, info = env.step_env(key, state, action, params)
        return state, (state, {"reward": reward, "terminated": terminated, "truncated": truncated} | info)

    key = jax.random.key(0)
    _, state = env.reset_to(key, params, **layout)
    _, (states, steps) = jax.lax.scan(step, state, actions)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states), steps


@jax.jit(static_argnums=0)
def play_batch(env, params, layout, actions):
    """`play` for [E] episodes with actions [E, T]; every leaf is [E, ...]."""
    return jax.vmap(lambda *episode: play(env, *episode))(params, layout, actions)


@jax.jit(static_argnums=0)
def observe_batch(env, states):
    """Observations of states with leaves [N, ...]."""
    return jax.vmap(lambda state: env.observe(state, env.default_params))(states)


def batch_params(env, num_episodes):
    return jax.tree.map(lambda leaf: jnp.full(num_episodes, leaf), env.default_params)


def batch_layout(num_episodes):
    layout = {"path": PATH, "origin": ORIGIN, "goal": GOAL}
    return {name: np.broadcast_to(part, (num_episodes, *part.shape)) for name, part in layout.items()}


def recorded_params(episodes):
    zeros = np.zeros(len(episodes["length"]), np.float32)
    return MysteryPathParams(**{name: episodes.get(key, zeros).astype(np.float32) for name, key in NAMES.items()})


def assert_states_as_recorded(states, episodes, shown):
    """shown: [E, T+1] bool, the steps that were recorded."""
    where = states.cell if hasattr(states, "cell") else states.center
    names = ("cell_xy" if hasattr(states, "cell") else "center_px", "rotation", "off_path", "num_fails")
    for name, values in zip(names, (where, states.rotation, states.off_path, states.num_fails), strict=True):
        np.testing.assert_array_equal(values[shown], episodes[name][shown], err_msg=name)
    bits = (states.visited.reshape(*shown.shape, 49) * (1 << np.arange(49))).sum(axis=-1)
    np.testing.assert_array_equal(bits[shown], episodes["visited_bits"][shown])


def assert_frames_as_recorded(variant, states, episodes, shown):
    """Compares every frame by checksum, one set of options at a time."""
    options = np.stack([episodes[f"opt_{name}"] for name in ("show_origin", "show_goal", "visual_feedback")], axis=1)
    for origin, goal, feedback in np.unique(options, axis=0).astype(bool).tolist():
        env = MysteryPath(variant, show_origin=origin, show_goal=goal, visual_feedback=feedback)
        chosen = shown & (options == (origin, goal, feedback)).all(axis=1)[:, None]
        frames = np.asarray(observe_batch(env, jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], states)))
        checksums = [zlib.crc32(np.ascontiguousarray(frame)) for frame in frames]
        np.testing.assert_array_equal(checksums, episodes["obs_crc32"][chosen])


@pytest.mark.parametrize("name", RECORDED)
def test_replays_recorded_episodes(name, recording):
    episodes = recording(f"mp_{name}")
    variant = "grid" if name.startswith("grid") else "continuous"
    layout = {"path": episodes["path_mask"], "origin": episodes["start_xy"], "goal": episodes["goal_xy"]}
    played = play_batch(MysteryPath(variant), recorded_params(episodes), layout, episodes["actions"])
    states, steps = jax.device_get(played)

    num_episodes, num_steps = episodes["actions"].shape
    shown = np.arange(num_steps + 1) <= episodes["length"][:, None]  # [E, T+1]
    acted = shown[:, 1:]
    assert_states_as_recorded(states, episodes, shown)
    assert_frames_as_recorded(variant, states, episodes, shown)
    np.testing.assert_array_equal(steps["reward"][acted], episodes["reward"][acted].astype(np.float32))
    done = steps["terminated"] | steps["truncated"]
    np.testing.assert_array_equal(done[acted], episodes["done"][acted])
    ends = np.arange(num_episodes), episodes["length"] - 1
    np.testing.assert_array_equal(steps["success"][ends], episodes["info_success"])
    np.testing.assert_array_equal(steps["terminated"][ends], episodes["info_success"])
    np.testing.assert_array_equal(steps["truncated"][ends], 1 - episodes["info_success"])
    np.testing.assert_array_equal(steps["num_fails"][ends], episodes["info_num_fails"])
    np.testing.assert_allclose((steps["reward"] * acted).sum(axis=1), episodes["info_reward"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["grid", "continuous"])
def test_matches_loop(variant):
    env = MysteryPath(
        variant,
        time_limit=50,
        show_origin=True,
        show_goal=True,
        reward_fall_off=-0.25,
        reward_path_progress=0.5,
        reward_step=-0.125,
        agent_speed=3.0 if variant == "grid" else 4.6,
    )
    rng = np.random.default_rng(0)
    actions = rng.choice(4, size=(6, 60), p=(0.1, 0.2, 0.2, 0.5)) if variant == "grid" else rng.choice(9, size=(6, 60))
    actions[0, :4] = (2, 3, 3, 1) if variant == "grid" else (6, 6, 6, 6)  # one episode that makes progress
    states, steps = jax.device_get(play_batch(env, batch_params(env, 6), batch_layout(6), actions))
    frames = np.asarray(observe_batch(env, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), states)))
    frames = frames.reshape(6, 61, 84, 84, 3)
    for episode in range(6):
        loop = oracles.MysteryPathLoop(env, env.default_params, PATH, ORIGIN, GOAL)
        np.testing.assert_array_equal(frames[episode, 0], loop.frame())
        for time, action in enumerate(actions[episode]):
            expected = loop.step(action)
            got = [steps[name][episode, time] for name in ("reward", "terminated", "truncated")]
            np.testing.assert_array_equal(got, np.array(expected, np.float32), err_msg=f"episode {episode} time {time}")
            np.testing.assert_array_equal(frames[episode, time + 1], loop.frame())
            assert states.num_fails[episode, time + 1] == loop.num_fails
    assert states.num_fails.max() > 0 and states.visited.any()


def test_all_rotations_at_all_borders_match_loop():
    """Hands stick out of the screen there; in the loop the border of the array cuts them off."""
    env = MysteryPath("continuous", visual_feedback=True)
    _, state = env.reset_to(jax.random.key(0), env.default_params, PATH, ORIGIN, GOAL)
    loop = oracles.MysteryPathLoop(env, env.default_params, PATH, ORIGIN, GOAL)
    places = [(x, y, rotation) for x in (6, 7, 40, 78) for y in (6, 41, 77, 78) for rotation in range(0, 360, 45)]
    centers, rotations = np.array([place[:2] for place in places]), np.array([place[2] for place in places])
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(places), *leaf.shape)), state)
    frames = observe_batch(env, states._replace(center=jnp.array(centers), rotation=jnp.array(rotations)))
    for frame, (x, y, rotation) in zip(np.asarray(frames), places, strict=True):
        loop.center, loop.rotation = [x, y], rotation
        np.testing.assert_array_equal(frame, loop.frame(), err_msg=f"{x}, {y}, {rotation}")


def test_a_fall_costs_two_steps_and_keeps_the_heading():
    env = MysteryPath("grid", reward_fall_off=-0.5)
    actions = np.array([[3, 2, 1, 3]])  # forward off the path; the next action is ignored; then west, into the border
    states, steps = jax.device_get(play_batch(env, batch_params(env, 1), batch_layout(1), actions))
    np.testing.assert_array_equal(states.cell[0], [(0, 3), (0, 2), (0, 3), (0, 3), (0, 3)])
    np.testing.assert_array_equal(states.rotation[0], [0, 0, 0, 90, 90])
    np.testing.assert_array_equal(states.off_path[0], [False, True, False, False, False])
    np.testing.assert_array_equal(steps["reward"][0], [-0.5, 0, 0, 0])
    np.testing.assert_array_equal(steps["num_fails"][0], [1, 1, 1, 1])


def test_goal_is_terminated_and_a_time_limit_without_it_truncated():
    env = MysteryPath("grid", reward_path_progress=0.1)
    params = batch_params(env, 3)._replace(time_limit=jnp.array([10, 11, 12]))
    actions = np.tile([2, 3, 3, 1, 3, 3, 2, 3, 3, 3, 3], (3, 1))  # reaches the goal with the 11th action
    _, steps = play_batch(env, params, batch_layout(3), actions)
    last = np.arange(11) == 10
    np.testing.assert_array_equal(steps["terminated"], [last] * 3)
    np.testing.assert_array_equal(steps["success"], [last] * 3)
    np.testing.assert_array_equal(steps["truncated"], [np.arange(11) == 9, [False] * 11, [False] * 11])
    np.testing.assert_allclose(steps["reward"].sum(axis=1), 1 + 0.1 * (PATH.sum() - 2), rtol=1e-6)


@pytest.mark.parametrize(("variant", "observation"), [("grid", "pixels"), ("continuous", "symbolic")])
def test_types_spaces_and_observe(variant, observation):
    env = MysteryPath(variant, observation=observation, show_goal=True)
    params, key = env.default_params, jax.random.key(0)
    obs, state = jax.jit(env.reset_env)(key, params)
    next_obs, next_state, reward, terminated, truncated, info = jax.jit(env.step_env)(key, state, jnp.int32(3), params)
    space = env.observation_space(params)
    assert obs.shape == next_obs.shape == space.shape and obs.dtype == next_obs.dtype == space.dtype
    observe = jax.jit(env.observe)
    np.testing.assert_array_equal(obs, observe(state, params))
    np.testing.assert_array_equal(next_obs, observe(next_state, params))
    assert reward.dtype == info["success"].dtype == info["num_fails"].dtype == jnp.float32
    assert terminated.dtype == truncated.dtype == bool
    assert jax.tree.map(jnp.result_type, next_state) == jax.tree.map(jnp.result_type, state)
    picture = jax.jit(env.render)(state, params)
    assert picture.shape == (336, 336, 3) and picture.dtype == jnp.uint8
    assert env.action_space(params) == Discrete(4 if variant == "grid" else 9)
    assert env.default_params.time_limit == (128 if variant == "grid" else 512)
    assert env.default_params.reward_path_progress == (0.0 if variant == "grid" else 0.1)


def test_symbols_say_where_the_agent_is_and_hide_what_is_not_shown():
    env = MysteryPath("continuous", observation="symbolic", show_origin=True)
    assert env.observation_space(env.default_params) == Box(-1.0, 1.0, (152,))
    _, state = env.reset_to(jax.random.key(0), env.default_params, PATH, ORIGIN, GOAL)
    state = state._replace(center=jnp.array([20, 41]), rotation=jnp.int32(90), off_path=jnp.bool_(True))
    symbols = np.asarray(env.observe(state, env.default_params))
    agent, origin, goal, rest = np.split(symbols, [49, 98, 147])
    assert agent.argmax() == 7 * 1 + 3 and origin.argmax() == 7 * 0 + 3 and not goal.any()
    np.testing.assert_allclose(rest, [0, 1, 2 / 12, -1 / 12, 1], atol=1e-6)


def test_render_shows_the_hidden_path_upright():
    env = MysteryPath("grid")
    _, state = env.reset_to(jax.random.key(0), env.default_params, PATH, ORIGIN, GOAL)
    picture = np.asarray(env.render(state, env.default_params))[2::48, 2::48]  # one pixel per cell, indexed [y, x]
    colored = picture.any(axis=-1)
    np.testing.assert_array_equal(colored, PATH.T)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"variant": "maze"}, "variant must be grid or continuous, got 'maze'"),
        ({"observation": "rgb"}, "observation must be pixels or symbolic, got 'rgb'"),
        ({"time_limit": 0}, "time_limit must be at least 1, .*got 0"),
        ({"origin_sides": ()}, r"origin_sides must name at least one .*got \(\)"),
        ({"origin_sides": [0, 4]}, r"origin_sides .*0 to 3, got \(0, 4\)"),
        ({"agent_speed": -1.0}, "agent_speed must not be negative, got -1.0"),
        ({"agent_speed": 5.0}, "agent_speed belongs to the continuous variant, .*got 5.0"),
        ({"variant": "continuous", "agent_speed": 0.9}, "agent_speed must be at least 1 pixel, .*got 0.9"),
    ],
)
def test_wrong_settings_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        MysteryPath(**fields)


@pytest.mark.parametrize(
    ("variant", "side", "actions"),
    [
        ("grid", BOTTOM, [3] * 6),
        ("grid", LEFT, [2] + [3] * 6),
        ("grid", RIGHT, [1] + [3] * 6),
        ("grid", TOP, [1, 1] + [3] * 6),
        ("continuous", LEFT, [6] * 22),
        ("continuous", TOP, [2] * 22),
    ],
)
def test_a_time_limit_below_the_shortest_path_is_refused(variant, side, actions):
    """A straight path takes exactly the fewest steps."""
    with pytest.raises(ValueError, match=f"time_limit must be at least {len(actions)}, .*got {len(actions) - 1}"):
        MysteryPath(variant, time_limit=len(actions) - 1, origin_sides=[side])
    env = MysteryPath(variant, time_limit=len(actions), origin_sides=[side])
    along = jnp.arange(7)
    path = jnp.zeros((7, 7), bool).at[(along, 3) if side in (LEFT, RIGHT) else (3, along)].set(True)
    ends = [jnp.array([x, 3]) if side in (LEFT, RIGHT) else jnp.array([3, x]) for x in (0, 6)]
    origin, goal = ends if side in (LEFT, TOP) else ends[::-1]
    _, state = env.reset_to(jax.random.key(0), env.default_params, path, origin, goal)

    def step(state, action):
        _, state, _, terminated, truncated, _ = env.step_env(jax.random.key(0), state, action, env.default_params)
        return state, (terminated, truncated)

    terminated, truncated = jax.lax.scan(step, state, jnp.array(actions))[1]
    assert terminated.tolist() == [False] * (len(actions) - 1) + [True] and not truncated.any()


def test_settings_from_a_configuration_file():
    assert hash(MysteryPath(origin_sides=[1, 2])) == hash(MysteryPath(origin_sides=(1, 2)))
    annotations = MysteryPath.__annotations__
    assert TypeAdapter(annotations["origin_sides"]).validate_python([0, 1]) == (0, 1)
    with pytest.raises(ValidationError):
        TypeAdapter(annotations["show_goal"]).validate_python("perhaps")


@pytest.mark.parametrize(
    ("env_name", "same"),
    [
        ("MysteryPath-Grid-Easy-v0", MysteryPath("grid", show_origin=True, show_goal=True, reward_path_progress=0.1)),
        ("MysteryPath-Easy-v0", MysteryPath("continuous", show_origin=True, show_goal=True)),
        ("MysteryPath-Grid-v0", MysteryPath("grid")),
        ("MysteryPath-v0", MysteryPath("continuous")),
    ],
)
def test_published_names(env_name, same):
    env = mystery_path_task(env_name=env_name)
    assert (env.variant, env.show_origin, env.show_goal) == (same.variant, same.show_origin, same.show_goal)
    assert env.default_params == same.default_params
    obs, state = env.reset_env(jax.random.key(3), env.default_params)
    same_obs, same_state = same.reset_env(jax.random.key(3), same.default_params)
    np.testing.assert_array_equal(obs, same_obs)
    jax.tree.map(np.testing.assert_array_equal, state, same_state)


def test_what_is_given_takes_precedence_over_the_name():
    env = mystery_path_task(env_name="MysteryPath-Grid-Easy-v0", show_goal=False, reward_path_progress=0.0)
    assert (env.show_origin, env.show_goal, env.default_params.reward_path_progress) == (True, False, 0.0)
