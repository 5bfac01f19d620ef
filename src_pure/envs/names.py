"""Published names of environments and of their options."""

from collections.abc import Collection
from difflib import get_close_matches


def check_name(name: str, known: Collection[str], what: str = "env_name") -> None:
    """Raises ValueError for an unknown name; it lists the known ones and suggests the closest."""
    if not known:
        raise ValueError(f"{what}: there are none, got {name!r}")
    if name not in known:
        by_lower_case = {name.lower(): name for name in known}
        closest = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.0)
        raise ValueError(
            f"{what} must be one of {', '.join(known)}, got {name!r}; did you mean {by_lower_case[closest[0]]}?"
        )
