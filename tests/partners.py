"""Finds matching policies and algorithms by building them, so new files need no entry in a list."""

from functools import cache

from src_pure.build import build
from src_pure.config.compose import compose
from src_pure.config.names import known_names
from src_pure.errors import ConfigError


def fits(algo, policy):
    try:
        build(compose([f"algo={algo}", f"policy={policy}", "model=mlp"]))
    except ConfigError:
        return False
    return True


@cache
def policy_of(algo):
    """The first name in configs/policy that the algorithm accepts."""
    return next(policy for policy in known_names("policy") if fits(algo, policy))


@cache
def algo_of(policy):
    """The first name in configs/algo that accepts the policy."""
    return next(algo for algo in known_names("algo") if fits(algo, policy))
