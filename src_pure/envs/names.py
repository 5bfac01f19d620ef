"""Environments that come under published names."""

from collections.abc import Collection
from difflib import get_close_matches


def check_name(env_name: str, known: Collection[str]) -> None:
    """Raises ValueError for a name that is not known: those that are, and the closest of them."""
    if env_name not in known:
        by_lower_case = {name.lower(): name for name in known}
        closest = get_close_matches(env_name.lower(), by_lower_case, n=1, cutoff=0.0)
        raise ValueError(
            f"env_name must be one of {', '.join(known)}, got {env_name!r}; did you mean {by_lower_case[closest[0]]}?"
        )
