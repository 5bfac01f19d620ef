"""The vocabulary of the project. Everything is time-major, [T, B, ...], and every state holds arrays only."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
from annotated_types import Ge, Gt, Interval, Lt

from src_pure.distributions import Categorical, Distribution

Array = jax.Array
Key = jax.Array  # a typed key, from jax.random.key
Params = Any  # pytree of network parameters
Carry = Any  # pytree of a memory's state, leaves [B, ...]
Metrics = dict[str, Array]
Number = Array | float  # what a configuration gives as a plain number and a lane as a traced one

# ranges, checked where a configuration becomes objects (build.py); inside traced code they are plain numbers
PositiveInt = Annotated[int, Gt(0), Lt(2**31)]
NonNegativeInt = Annotated[int, Ge(0), Lt(2**31)]
Depth = Annotated[int, Gt(0), Lt(1000)]  # of what tracing a program repeats, such as layers
Width = Annotated[int, Gt(0), Lt(129)]  # of what tracing repeats within a layer
PositiveFloat = Annotated[float, Gt(0), Lt(float("inf"))]
NonNegativeFloat = Annotated[float, Ge(0), Lt(float("inf"))]
FiniteFloat = Annotated[float, Gt(-float("inf")), Lt(float("inf"))]
PositiveOrInf = Annotated[float, Gt(0)]
UnitFloat = Annotated[float, Interval(ge=0, le=1)]

# choices of a batch of environments, see envs/vector.py
Truncation = Literal["terminate", "bootstrap"]
Resets = Literal["on_demand", "optimistic", "pool"]


class Timestep(NamedTuple):
    """What an environment shows after a step (or a reset), for a batch of environments.

    `reset` belongs to `obs`; `reward`, `terminated`, `truncated`, `ignored` belong to the action that led to it.
    """

    obs: Array  # [B, ...]
    reset: Array  # [B] bool: obs starts an episode
    reward: Array  # [B] float32
    terminated: Array  # [B] bool: the action ended the episode, nothing follows
    truncated: Array  # [B] bool: the action ended it by a time limit, obs is the final one and has a value
    ignored: Array  # [B] bool: the environment was only waiting to be reset; this transition carries no loss
    finished: Array  # [B] bool: an episode ended, its statistics are in `info`
    info: Metrics  # [B] each: episode_return, episode_length and what the environment adds (success, ...)


class Trajectory(NamedTuple):
    """What acting for T steps leaves for learning; all [T, B, ...]. Flags as in Timestep, aligned with `action`."""

    obs: Array
    reset: Array
    action: Array
    log_prob: Array
    value: Array
    reward: Array
    terminated: Array
    truncated: Array
    ignored: Array


class PolicyOutput(NamedTuple):
    logits: Array | Distribution  # logits [T, B, A] of discrete actions, or another distribution over actions
    value: Array  # [T, B]

    @property
    def actions(self) -> Distribution:
        """The distribution over actions."""
        return self.logits if isinstance(self.logits, Distribution) else Categorical(self.logits)


class Learner(NamedTuple):
    params: Params
    opt_state: Any
    extra: Any = ()  # what else an algorithm keeps from update to update: a target network, a replay memory


class Actor(NamedTuple):
    env_state: Any
    timestep: Timestep  # what the policy sees next
    carry: Carry  # memory before it sees it


class TrainState(NamedTuple):
    """One run, whole: saving this pytree saves the training. With an axis of runs, every leaf is [R, ...]."""

    learner: Learner
    actor: Actor
    key: Key
    update: Array  # int32; environment steps are counted on the host, where they cannot overflow
