"""Types shared by the whole project. Everything is time-major, [T, B, ...], and states hold only arrays."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
from annotated_types import Ge, Gt, Interval, Lt

from src_pure.distributions import Categorical, Distribution

Array = jax.Array
Key = jax.Array  # a typed key, from jax.random.key
Params = Any  # pytree of network parameters
Carry = Any  # pytree of a memory's state, leaves [B, ...]
Metrics = dict[str, Array]
Number = Array | float  # plain in a configuration, traced in a lane

# ranges, checked when a configuration becomes objects (build.py); traced code sees plain numbers
PositiveInt = Annotated[int, Gt(0), Lt(2**31)]
NonNegativeInt = Annotated[int, Ge(0), Lt(2**31)]
Depth = Annotated[int, Gt(0), Lt(1000)]  # counts that tracing unrolls, such as layers
Width = Annotated[int, Gt(0), Lt(129)]  # counts that tracing unrolls within a layer
PositiveFloat = Annotated[float, Gt(0), Lt(float("inf"))]
NonNegativeFloat = Annotated[float, Ge(0), Lt(float("inf"))]
FiniteFloat = Annotated[float, Gt(-float("inf")), Lt(float("inf"))]
PositiveOrInf = Annotated[float, Gt(0)]
UnitFloat = Annotated[float, Interval(ge=0, le=1)]

# options for a batch of environments, see envs/vector.py
Truncation = Literal["terminate", "bootstrap"]
Resets = Literal["on_demand", "optimistic", "pool"]


class Timestep(NamedTuple):
    """What an environment shows after a step (or a reset), for a batch of environments.

    `reset` belongs to `obs`; `reward`, `terminated`, `truncated`, `ignored` belong to the action that led to it.
    """

    obs: Array  # [B, ...]
    reset: Array  # [B] bool: obs starts an episode
    reward: Array  # [B] float32
    terminated: Array  # [B] bool: the action ended the episode; its future value is 0
    truncated: Array  # [B] bool: a time limit ended the episode; obs is its final observation, whose value counts
    ignored: Array  # [B] bool: the environment was only waiting to be reset; the loss skips this transition
    finished: Array  # [B] bool: an episode ended, its statistics are in `info`
    info: Metrics  # [B] each: episode_return, episode_length and any that the environment adds (success, ...)


class Trajectory(NamedTuple):
    """T steps of acting, recorded for learning; all [T, B, ...]. Flags as in Timestep, aligned with `action`."""

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
    extra: Any = ()  # anything else that an algorithm keeps between updates: a target network, a replay memory


class Actor(NamedTuple):
    env_state: Any
    timestep: Timestep  # what the policy sees next
    carry: Carry  # memory before the policy sees it


class TrainState(NamedTuple):
    """The complete state of one run: saving it saves the training. For several runs, every leaf is [R, ...]."""

    learner: Learner
    actor: Actor
    key: Key
    update: Array  # int32; environment steps are counted on the host, where they cannot overflow
