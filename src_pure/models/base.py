"""The protocol of memory models."""

from typing import Any, Literal, Protocol, runtime_checkable

import flax.linen as nn

from src_pure.types import Array, Carry


class MemoryModel(Protocol):
    """A flax linen module with memory, for inputs of any width D_in.

    `reset[t]` is True if inputs[t] is the first of an episode: memory is cleared before that input is used.
    T single steps, one sequence of T, and any split into chunks give the same outputs and carry.
    Arrays [T, B] that it sows among the intermediates become columns of the metrics.
    Its products are those of ops/precision.py or `layers.dense`, which GPUs do not round.
    """

    def initialize_carry(self, batch_size: int) -> Carry:
        """A fresh memory, leaves [B, ...]; needs no parameters."""

    def __call__(self, carry: Carry, inputs: Array, reset: Array) -> tuple[Carry, Array]:
        """inputs [T, B, D_in], reset [T, B] bool -> (carry, outputs [T, B, D])."""


@runtime_checkable
class WithPrecision(Protocol):
    """A memory model that can round the results of its dense layers; one without this field does not."""

    precision: Any  # "bfloat16" rounds; flax gives the word another meaning and other values


@runtime_checkable
class WithWindow(Protocol):
    """A memory model that forgets after a fixed number of steps."""

    memory_len: int


def precision_of(model: nn.Module) -> Literal["float32", "bfloat16"]:
    """bfloat16 for a model whose `precision` is bfloat16, else float32."""
    return "bfloat16" if isinstance(model, WithPrecision) and model.precision == "bfloat16" else "float32"
