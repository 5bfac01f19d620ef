import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from src_pure.envs.spaces import Box, Discrete
from src_pure.envs.tmaze import TMaze, TMazeParams
from tests.envs import oracles

UP, DOWN, LEFT, RIGHT = range(4)
SEEN = {"v1": 3, "v2": 10}  # columns before the distractors
RECORDED = (
    *("v1_L1_nd2", "v1_L5", "v1_L7_nd0", "v1_L20", "v1_L20_defaultlimit", "v1_L180"),
    *("v2_L1_nd2", "v2_L5", "v2_L7_nd0", "v2_L20", "v2_L20_defaultlimit", "v2_L180", "v2_L256"),
)
QUICK = ("v1_L1_nd2", "v1_L20_defaultlimit", "v2_L7_nd0", "v2_L180")  # each is a program of its own


def play(env, params, cue, actions, seed=0):
    """One episode with `actions` [T], continuing past its end: everything that the environment returns, time first."""

    def step(state, action_and_key):
        action, key = action_and_key
        obs, state, reward, terminated, truncated, info = env.step_env(key, state, action, params)
        return state, (obs, state, reward, terminated, truncated, info)

    key_reset, key_steps = jax.random.split(jax.random.key(seed))
    obs, state = env.reset_to(key_reset, params, cue=cue)
    keys = jax.random.split(key_steps, actions.shape[0])
    _, (next_obs, states, reward, terminated, truncated, info) = jax.lax.scan(step, state, (actions, keys))
    return {
        "obs": jnp.concatenate([obs[None], next_obs]),
        "position": jnp.concatenate([state.position[None], states.position]),
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated,
        "success": info["success"],
    }


@jax.jit(static_argnums=0)
def play_batch(env, params, cue, actions):
    """`play` for [E] episodes with actions [E, T]; leaves of `params` are [E]."""
    return jax.vmap(lambda *episode: play(env, *episode))(params, cue, actions)


def batch_params(env, num_episodes, **changed):
    params = env.default_params._replace(**changed)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, jnp.int32), (num_episodes,)), params)


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x not in QUICK)) for x in RECORDED])
def test_replays_recorded_episodes(name, recording):
    episodes = recording(f"tmaze_{name}")
    variant, distractors = name[:2], int(episodes["num_distractors"])
    env = TMaze(variant, corridor_len=int(episodes["corridor_len"]), num_distractors=distractors)
    num_episodes, num_steps = episodes["actions"].shape
    params = batch_params(env, num_episodes, time_limit=episodes["max_episode_steps"])
    if name.endswith("defaultlimit"):
        params = batch_params(env, num_episodes)
    played = jax.device_get(play_batch(env, params, episodes["cue"], episodes["actions"]))

    step = np.arange(num_steps + 1)
    shown = step <= episodes["length"][:, None]  # [E, T+1]
    acted = shown[:, 1:]
    seen = SEEN[variant]
    np.testing.assert_array_equal(played["obs"][shown][:, :seen], episodes["obs"][shown][:, :seen])
    np.testing.assert_array_equal(played["position"][shown], episodes["pos"][shown])
    np.testing.assert_array_equal(played["reward"][acted], episodes["reward"][acted].astype(np.float32))
    np.testing.assert_array_equal(played["terminated"][acted], episodes["terminated"][acted])
    np.testing.assert_array_equal(played["truncated"][acted], episodes["truncated"][acted])
    last = episodes["length"] - 1
    success = played["success"][np.arange(num_episodes), last]
    np.testing.assert_array_equal(success, episodes["last_success_attr"])
    assert played["success"][acted].sum() == success.sum()


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_matches_loop_with_corridor_lengths_and_time_limits_side_by_side(variant):
    corridor_len, time_limit = np.repeat([1, 2, 9], 4), np.tile([30, 50], 6)
    actions = np.random.default_rng(0).choice(4, size=(12, 40), p=(0.05, 0.05, 0.2, 0.7))
    cue = np.arange(12) // 2 % 2
    env = TMaze(variant, num_distractors=2)
    params = TMazeParams(corridor_len=corridor_len, time_limit=time_limit)
    played = jax.device_get(play_batch(env, params, cue, actions))
    for episode in range(12):
        maze = oracles.TMazeLoop(variant, corridor_len[episode], time_limit[episode])
        expected = oracles.tmaze_episode(maze, cue[episode], actions[episode])
        np.testing.assert_array_equal(played["obs"][episode, :, : SEEN[variant]], expected.pop("obs"))
        for name, values in expected.items():
            np.testing.assert_array_equal(played[name][episode], values.astype(played[name].dtype), err_msg=name)


def test_whole_gray_code_matches_loop():
    env = TMaze("v2", corridor_len=256, num_distractors=0)
    actions = np.full((1, 255), RIGHT)
    played = play_batch(env, batch_params(env, 1), np.array([1]), actions)
    expected = oracles.tmaze_episode(oracles.TMazeLoop("v2", 256, 1000), 1, actions[0])
    np.testing.assert_array_equal(played["obs"][0], expected["obs"])


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_distractors_are_fair_fresh_bits_and_zero_at_reset(variant):
    env = TMaze(variant, corridor_len=5, num_distractors=6)
    played = play_batch(env, batch_params(env, 1), np.array([0]), np.full((1, 2000), LEFT))
    bits = np.asarray(played["obs"][0, :, SEEN[variant] :])
    np.testing.assert_array_equal(bits[0], 0)
    assert set(np.unique(bits)) == {0, 1}
    np.testing.assert_allclose(bits[1:].mean(axis=0), 0.5, atol=0.06)  # five standard errors
    np.testing.assert_allclose((bits[2:] != bits[1:-1]).mean(), 0.5, atol=0.03)


def test_reset_draws_both_cues_equally_often():
    env = TMaze("v2")
    reset = jax.jit(jax.vmap(lambda key: env.reset_env(key, env.default_params)))
    obs, state = reset(jax.random.split(jax.random.key(0), 2000))
    np.testing.assert_allclose(state.cue.mean(), 0.5, atol=0.06)
    np.testing.assert_array_equal(obs[:, :2], np.array([[0, 1], [1, 0]])[state.cue])
    np.testing.assert_array_equal(obs[:, 2:], 0)


def test_turn_on_the_last_allowed_step_sets_both_flags():
    env = TMaze("v2", corridor_len=3, time_limit=3)
    cue, turn = np.array([UP, UP, DOWN, DOWN]), np.array([UP, DOWN, UP, DOWN])
    played = play_batch(env, batch_params(env, 4), cue, np.stack([[RIGHT, RIGHT, last] for last in turn]))
    np.testing.assert_array_equal(played["terminated"], [[False, False, True]] * 4)
    np.testing.assert_array_equal(played["truncated"], [[False, False, True]] * 4)
    np.testing.assert_array_equal(played["success"], [[0, 0, right] for right in cue == turn])
    expected = [[-0.1, -0.1, 4.0 if right else -1.0] for right in cue == turn]
    np.testing.assert_array_equal(played["reward"], np.array(expected, np.float32))


def test_one_cannot_turn_early_nor_walk_out_of_the_junction():
    env = TMaze("v1", corridor_len=2, num_distractors=0)
    played = play_batch(env, batch_params(env, 1), np.array([DOWN]), np.array([[UP, DOWN, LEFT, RIGHT, LEFT, RIGHT]]))
    np.testing.assert_array_equal(played["position"][0], [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(played["obs"][0], [(1, 1, 0)] + [(1, 0, 1)] * 3 + [(0, 1, 0)] * 3)
    assert not played["terminated"].any() and not played["truncated"].any()
    np.testing.assert_array_equal(played["reward"], np.float32(-0.1))


def test_types_and_spaces():
    env = TMaze("v2", num_distractors=3)
    params = env.default_params
    assert params == TMazeParams(corridor_len=10, time_limit=1000)
    assert TMaze("v1").default_params.time_limit == 5000
    assert env.action_space(params) == Discrete(4)
    assert env.observation_space(params) == Box(0.0, 1.0, (13,))
    assert TMaze("v1").observation_space(params).shape == (9,)
    key = jax.random.key(0)
    obs, state = env.reset_env(key, params)
    next_obs, next_state, reward, terminated, truncated, info = env.step_env(key, state, jnp.int32(RIGHT), params)
    assert obs.dtype == next_obs.dtype == reward.dtype == info["success"].dtype == jnp.float32
    assert obs.shape == next_obs.shape == (13,)
    assert terminated.dtype == truncated.dtype == bool
    assert jax.tree.map(jnp.result_type, next_state) == jax.tree.map(jnp.result_type, state)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"corridor_len": 257}, "corridor_len must be at most 256 .*8-bit Gray code, got 257; .*v1"),
        ({"corridor_len": 0}, "corridor_len must be at least 1, got 0"),
        ({"num_distractors": -1}, "num_distractors must be at least 0, got -1"),
        ({"time_limit": 0}, "time_limit must be at least 1, .*got 0"),
        ({"variant": "v3"}, "variant must be v1 or v2, got 'v3'"),
        ({"corridor_len": 5, "time_limit": 4}, "corridor_len must be at most time_limit, .*got 5 and 4"),
        ({"variant": "v1", "corridor_len": 5001}, "corridor_len must be at most time_limit, .*got 5001 and 5000"),
    ],
)
def test_wrong_settings_are_refused_with_the_remedy(fields, words):
    with pytest.raises(ValueError, match=words):
        TMaze(**fields)


def test_settings_at_the_edge_are_accepted():
    TMaze("v2", corridor_len=256, num_distractors=0, time_limit=256)
    TMaze("v1", corridor_len=257)


def test_annotations_check_values_of_a_configuration_file():
    annotations = TMaze.__annotations__
    TypeAdapter(annotations["time_limit"]).validate_python(None)
    TypeAdapter(annotations["variant"]).validate_python("v1")
    for name, value in (("variant", "v3"), ("corridor_len", "ten"), ("time_limit", 2.5)):
        with pytest.raises(ValidationError):
            TypeAdapter(annotations[name]).validate_python(value)


def test_picture_shows_agent_and_cue():
    env = TMaze("v2", corridor_len=5)
    _, state = env.reset_to(jax.random.key(0), env.default_params, cue=UP)
    render = jax.jit(env.render)
    picture = render(state, env.default_params)
    assert picture.shape == (64, 128, 3) and picture.dtype == jnp.uint8
    moved = render(state._replace(position=jnp.int32(4)), env.default_params)
    yellow_columns = [np.nonzero((np.asarray(image) == (255, 220, 0)).all(-1))[1] for image in (picture, moved)]
    assert yellow_columns[0].max() < 64 < yellow_columns[1].min()
    other_cue = render(state._replace(cue=jnp.int32(DOWN)), env.default_params)
    np.testing.assert_array_equal(other_cue[1:], picture[1:][::-1])
