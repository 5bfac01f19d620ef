"""Reinforcement learning for agents with memory, end to end in one XLA program."""


def load_policy(folder, trust=()):
    """(initialize_carry, act) of a policy that `python scripts/export.py RUN` wrote into a folder.

    initialize_carry(batch_size) -> carry: a fresh memory, leaves [B, ...]
    act(key, carry, obs, reset) -> (carry, action [B]): obs [B, ...] as the task shows them, reset [B] bool: obs starts
    an episode, so what the memory holds is cleared first; sampled with a typed key, greedy where key is None

    Both may be called inside jit, vmap and scan. trust: packages besides src_pure whose classes the policy may name,
    such as ("my_package",); no other code is imported or run. Raises FileNotFoundError where no policy is,
    CheckpointError for one that is damaged, of another format or of another version of its model, ConfigError for a
    configuration that is wrong or names classes that are not trusted.
    """
    from src_pure.runs import policies  # here, so that importing the package costs nothing

    return policies.load_policy(folder, trust)
