"""The protocol of memory models."""

from typing import Literal, Protocol

from src_pure.types import Array, Carry


class MemoryModel(Protocol):
    """A flax linen module that remembers; accepts any D_in.

    `reset[t]` is True where inputs[t] is the first of an episode: memory is cleared before it is used.
    T single steps, one sequence of T, and any split into chunks give the same outputs and carry.
    What it sows among the intermediates, [T, B], becomes a column of the table of metrics.
    """

    def initialize_carry(self, batch_size: int) -> Carry:
        """A fresh memory, leaves [B, ...]; needs no parameters."""

    def __call__(self, carry: Carry, inputs: Array, reset: Array) -> tuple[Carry, Array]:
        """inputs [T, B, D_in], reset [T, B] bool -> (carry, outputs [T, B, D])."""


def precision_of(model: MemoryModel) -> Literal["float32", "bfloat16"]:
    """bfloat16 for a model whose `precision` is that; whatever else it is, or where it is none, float32."""
    return "bfloat16" if getattr(model, "precision", None) == "bfloat16" else "float32"
