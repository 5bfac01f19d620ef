"""Messages between the processes of one training: plain values and arrays over a socket, never code."""

import json
import math
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

LENGTH = struct.Struct("!Q")
LONGEST = 2**30  # bytes of the plain values of a message


class Message(NamedTuple):
    values: dict[str, Any]
    arrays: list[np.ndarray]


class Channel:
    """The connection to one other process. Every method raises ConnectionError once the other has ended."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, values: dict[str, Any], arrays: Sequence[Any] = ()) -> None:
        """Sends values that fit into JSON, and arrays."""
        contiguous = [np.ascontiguousarray(x) for x in arrays]
        described = [(x.dtype.name, np.shape(given)) for given, x in zip(arrays, contiguous, strict=True)]
        text = json.dumps([values, described]).encode()
        self.connection.sendall(LENGTH.pack(len(text)) + text)
        for x in contiguous:
            self.connection.sendall(x.reshape(-1).view(np.uint8))

    def receive(self) -> Message:
        """Waits for the next message. Raises ConnectionError also for bytes that are none."""
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        if length > LONGEST:
            raise ConnectionError("what came is not a message of a training")
        try:
            values, described = json.loads(bytes(self._read(length)))
            return Message(values, [self._array(name, shape) for name, shape in described])
        except (ValueError, TypeError) as error:
            raise ConnectionError(f"what came is not a message of a training: {error}") from error

    def close(self) -> None:
        self.connection.close()

    def _array(self, name: str, shape: Sequence[int]) -> np.ndarray:
        dtype = jnp.dtype(name)
        return self._read(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    def _read(self, num_bytes: int) -> np.ndarray:
        read = np.empty(num_bytes, np.uint8)
        view = memoryview(read)
        while view:
            received = self.connection.recv_into(view)
            if not received:
                raise ConnectionError("it closed the connection")
            view = view[received:]
        return read
