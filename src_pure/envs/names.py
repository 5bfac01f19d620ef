"""Environments that come under published names, and what they call their options."""

from collections.abc import Collection
from difflib import get_close_matches


def check_name(name: str, known: Collection[str], what: str = "env_name") -> None:
    """Raises ValueError for a name that is not known: those that are, and the closest of them."""
    if not known:
        raise ValueError(f"{what}: there are none, got {name!r}")
    if name not in known:
        by_lower_case = {name.lower(): name for name in known}
        closest = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.0)
        raise ValueError(
            f"{what} must be one of {', '.join(known)}, got {name!r}; did you mean {by_lower_case[closest[0]]}?"
        )
