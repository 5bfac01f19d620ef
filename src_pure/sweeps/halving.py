"""Asynchronous successive halving (Li et al., arXiv:1810.05934) with its stopping rule: losers stop, winners go on.

Trials are judged at rungs, after as many updates as the rung says; each rung is eta times as far as the one before. The
paper promotes: it pauses trials and continues the best of them later, which needs their states to be kept. Here a trial
that reaches a rung is judged at once, against all that have reached it so far, so its lane is free as soon as it loses.
"""

from collections.abc import Mapping
from functools import cache
from random import Random

WORST = float("-inf")  # the value of a trial with a run that failed: less than any other


def rungs_of(num_updates: int, eta: int, number: int) -> tuple[int, ...]:
    """The updates after which trials are judged: those of the smallest rung times 1, eta, eta^2, ...

    The last is num_updates, or a little less if that is not a multiple of eta^(number-1).
    """
    smallest = num_updates // eta ** (number - 1)
    return tuple(smallest * eta**rung for rung in range(number))


def goes_on(trial: int, values: Mapping[int, float], eta: int) -> bool:
    """Whether a trial is among the best 1/eta of those that have reached its rung, and so goes on; one always does.

    values: of all that have, by their numbers. Equal values, such as 0 while nobody solves it, are ordered by lot:
    if the earlier or the later of them won, far less or far more than 1/eta would go on.
    """
    better = sum((-value, lot(other)) < (-values[trial], lot(trial)) for other, value in values.items())
    return better < max(1, len(values) // eta)


@cache
def lot(trial: int) -> float:
    """A number from 0 to 1, always the same for a trial."""
    return Random(trial).random()
