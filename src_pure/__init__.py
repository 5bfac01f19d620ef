"""Reinforcement learning for agents with memory, end to end in one XLA program."""


def load_policy(folder, trust=()):
    """(initialize_carry, act) of a policy that `python scripts/export.py RUN` wrote into a folder.

    initialize_carry(batch_size) -> carry: a fresh memory, leaves [B, ...]
    act(key, carry, obs, reset) -> (carry, action): obs [B, ...] are the task's observations; reset [B] bool marks those
    that start an episode, and clears their memory first. The action is sampled with a typed key, greedy with None.

    The action is ready for the environment: int32 [B], or for vector actions float32 [B, A] within the
    bounds of the action space. `load_actor_critic` gives its probability.

    Both may be called inside jit, vmap and scan, also in a 64-bit program: obs may be float64, carry and action have 32
    bits. trust: packages besides src_pure whose classes the policy may name, such as ("my_package",); no other code is
    imported or run. Raises FileNotFoundError if the folder holds no policy; CheckpointError if the policy is damaged,
    or of another format or model version; ConfigError if its configuration is invalid or names untrusted classes.
    """
    from src_pure.runs import policies  # here, to keep importing the package cheap

    return policies.load_policy(folder, trust)


def load_actor_critic(folder, trust=()):
    """(initialize_carry, apply) of the same policy, for access to probabilities and values.

    apply(carry, obs, reset) -> (carry, output): output.actions is the distribution over actions, with sample(key),
    mode(), log_prob(action) and entropy(); output.logits holds the logits [B, A] of discrete actions; output.value [B]
    is the value of obs

    A sampled vector is not clipped, so that its density is defined. Clipped to the action space, it is the action that
    `load_policy` returns.
    """
    from src_pure.runs import policies

    return policies.load_actor_critic(folder, trust)


def read_run(folder, table="metrics"):
    """The metrics of a run folder as a pandas DataFrame: one row per update and run, missing values as NaN.

    Of a sweep folder, the rows of all its batches, with the columns of the sweep's runs: point, state and one for every
    swept key, such as "algo.learning_rate". table="evaluation" gives the evaluation instead: one row per evaluation,
    run and mode of the policy, "sampled" or "greedy". A run that is still training can be read at any time. Raises
    FileNotFoundError if the folder holds no such table yet.
    """
    from src_pure.results import reading  # here, to keep importing the package cheap

    return reading.read_run(folder, table)
