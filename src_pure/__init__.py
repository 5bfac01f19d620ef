"""Reinforcement learning for agents with memory, end to end in one XLA program."""


def load_policy(folder, trust=()):
    """(initialize_carry, act) of a policy that `python scripts/export.py RUN` wrote into a folder.

    initialize_carry(batch_size) -> carry: a fresh memory, leaves [B, ...]
    act(key, carry, obs, reset) -> (carry, action): obs [B, ...] as the task shows them, reset [B] bool: obs starts
    an episode, so what the memory holds is cleared first; sampled with a typed key, greedy where key is None

    The action is what the environment is to be given: int32 [B], or where actions are vectors float32 [B, A], within
    the bounds of the action space. `load_actor_critic` gives its probability.

    Both may be called inside jit, vmap and scan, also in a 64-bit program: obs may be float64, carry and action have 32
    bits. trust: packages besides src_pure whose classes the policy may name, such as ("my_package",); no other code is
    imported or run. Raises FileNotFoundError where no policy is, CheckpointError for one that is damaged, of another
    format or of another version of its model, ConfigError for a configuration that is wrong or names classes that are
    not trusted.
    """
    from src_pure.runs import policies  # here, so that importing the package costs nothing

    return policies.load_policy(folder, trust)


def load_actor_critic(folder, trust=()):
    """(initialize_carry, apply) of the same policy, for whoever needs probabilities or values.

    apply(carry, obs, reset) -> (carry, output): output.actions is the distribution over actions, with sample(key),
    mode(), log_prob(action) and entropy(); output.logits holds the logits [B, A] of discrete actions; output.value [B]
    is the value of obs

    A sampled vector is not clipped: as drawn it has a density. Clipped to the action space it is the action of
    `load_policy`.
    """
    from src_pure.runs import policies

    return policies.load_actor_critic(folder, trust)
