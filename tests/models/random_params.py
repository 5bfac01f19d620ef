"""Parameters far from their initial values."""

from src_pure.conformance import random_params

__all__ = ["random_params"]
