"""The processes of one training, on one or many hosts: which one this is, and how the first leads the others.

jax.distributed brings them together and ends them if one is lost. Its store moves a few megabytes per second, so
commands and results go over sockets. Process 0 decides and writes; the others do what it says.
"""

import hashlib
import json
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import jax

from src_pure.device import check_device
from src_pure.errors import ConfigError, DeviceError, stop
from src_pure.runs.channel import Channel, Message

Result = TypeVar("Result")
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")  # set by srun in each task
PORTS = range(61440, 65536)  # for jobs of Slurm, as jax chooses them
TO_BEGIN, HEARTBEAT = 300, 60  # seconds until all have come, and until a silent process counts as lost
HELLO = 10  # seconds for the first message of a connection
KEY = "src_pure/address"
ENDED = "ended; what was saved stays, and the same command continues"
RAISED = {ConfigError.exit_code: ConfigError, DeviceError.exit_code: DeviceError}


class Place(NamedTuple):
    """Which process of a training this is."""

    process: int
    number: int  # of processes
    coordinator: str  # host:port where process 0 waits for the others
    devices: list[int] | None = None  # of this host that belong to the process; None: all that it sees


def place_of(environment: Mapping[str, str]) -> Place | None:
    """Which process this is, by the variables of jax or those of srun; None if it trains by itself.

    Raises ConfigError for variables that do not say it.
    """
    given = {name: environment[name] for name in VARIABLES if environment.get(name)}
    if given:
        if missing := [name for name in VARIABLES if name not in given]:
            raise ConfigError(f"{' and '.join(given)} also need {' and '.join(missing)}, or unset them")
        number, process = (_whole(given, name) for name in VARIABLES[1:])
        if not re.fullmatch(r".+:\d+", given[VARIABLES[0]]):
            raise ConfigError(f"{VARIABLES[0]} must be HOST:PORT, got {given[VARIABLES[0]]!r}")
        place = Place(process, number, given[VARIABLES[0]])
    elif all(environment.get(name) for name in SLURM):
        number, process = (_whole(environment, name) for name in SLURM[2:])
        place = Place(process, number, _coordinator(environment), _devices(environment, number))
    else:
        return None
    if not 0 <= place.process < place.number:
        raise ConfigError(f"processes must be numbered from 0 to {place.number - 1}, this one is {place.process}")
    return place if place.number > 1 else None


def _whole(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdecimal():
        raise ConfigError(f"{name} must be a whole number, got {environment[name]!r}")
    return int(environment[name])


def _coordinator(environment: Mapping[str, str]) -> str:
    """The first host of a step of Slurm, and a port that two steps rarely share."""
    found = re.match(r"([^,\[]+)(?:\[(\w+))?", environment["SLURM_STEP_NODELIST"])  # n1,n2 or n[01-04,7]
    if found is None:
        raise ConfigError(f"SLURM_STEP_NODELIST must list hosts, got {environment['SLURM_STEP_NODELIST']!r}")
    step = environment["SLURM_JOB_ID"] + environment.get("SLURM_STEP_ID", "")
    port = environment.get("JAX_COORDINATOR_PORT") or PORTS[int(re.sub(r"\D", "", step) or 0) % len(PORTS)]
    return f"{''.join(part or '' for part in found.groups())}:{port}"


def _devices(environment: Mapping[str, str], number: int) -> list[int] | None:
    """One device for each of several tasks of a node that see the same ones; a task alone on its node takes all."""
    alone = number <= int(environment.get("SLURM_STEP_NUM_NODES", 1))
    if alone or "SLURM_GPUS_PER_TASK" in environment or "JAX_LOCAL_DEVICE_IDS" in environment:
        return None
    return [int(environment.get("SLURM_LOCALID", 0))]


class LostProcess(DeviceError):
    """A process of this training ended without a word."""


class Group:
    """The processes of a training as process 0 sees them."""

    def __init__(self, place: Place, others: Sequence[Channel]):
        self.place = place
        self.others = others  # in the order of their numbers, from 1 on
        self.signal: signal.Signals | None = None  # the first that one of the others received
        self.lost = False

    def call(
        self, own: Callable[[], Result], commands: Sequence[tuple[dict[str, Any], Sequence[Any]]]
    ) -> tuple[Result, list[Message]]:
        """(what `own` returns, the answers of the others to their commands), computed at the same time.

        Raises the error of `own`, or else of the first process that failed; LostProcess if one has ended.
        """
        for number, command in enumerate(commands):
            self._at(number, lambda other, command=command: other.send(*command))
        try:
            result = own()
        finally:
            answers = [self._at(number, Channel.receive) for number in range(len(self.others))]
        for number, answer in enumerate(answers, 1):
            if self.signal is None and answer.values["signal"] is not None:
                self.signal = signal.Signals(answer.values["signal"])
            if "error" in answer.values:
                kind = RAISED.get(answer.values["code"], RuntimeError)
                raise kind(f"process {number}: {answer.values['error']}")
        return result, answers

    def refuse_other_commands(self, command: Sequence[str]) -> None:
        """Raises ConfigError if a process was started with other arguments."""
        _, answers = self.call(lambda: None, [({"do": "arguments"}, ())] * len(self.others))
        for number, answer in enumerate(answers, 1):
            if answer.values["arguments"] != digest(command):
                raise ConfigError(
                    f"{self.place.number} processes that train together must have one command, process {number} has "
                    f"another than process 0; unset {VARIABLES[1]}, or SLURM_STEP_NUM_TASKS, to train apart"
                )

    def end(self, code: int) -> None:
        """Ends the other processes with an exit code."""
        for other in self.others:
            try:
                other.send({"do": "end", "code": code, "lost": self.lost})
            except OSError:
                self.lost = True

    def _at(self, number: int, function: Callable[[Channel], Any]) -> Any:
        try:
            return function(self.others[number])
        except OSError as error:
            self.lost = True
            raise LostProcess(f"process {number + 1} of {self.place.number} {ENDED} ({error})") from error


def digest(command: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(command)).encode()).hexdigest()


@contextmanager
def together(place: Place) -> Generator[list[Channel]]:
    """The channels from process 0 to each other process, in order, or from another one to process 0.

    Raises DeviceError if they do not find each other.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it swallows SIGTERM
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.number,
            place.process,
            local_device_ids=place.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=TO_BEGIN,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
        channels = _accepted(place) if place.process == 0 else [_connected(place)]
    except (RuntimeError, OSError) as error:
        raise DeviceError(
            f"process {place.process} did not find the {place.number - 1} others at {place.coordinator}: {error}"
        ) from error
    check_device()  # all at once, because jax tells each process about the devices of the others
    yield channels
    for channel in channels:
        channel.close()
    jax.distributed.shutdown()


def _accepted(place: Place) -> list[Channel]:
    """The channels to the other processes; a secret in jax's store keeps strangers out."""
    secret, found = secrets.token_hex(), {}
    local = place.coordinator.startswith(("localhost:", "127.0.0.1:"))
    with socket.create_server(("127.0.0.1" if local else "", 0)) as server:
        server.settimeout(TO_BEGIN)
        _store().key_value_set(KEY, json.dumps({"port": server.getsockname()[1], "secret": secret}))
        while len(found) < place.number - 1:
            connection, _ = server.accept()
            connection.settimeout(HELLO)
            channel = Channel(connection)
            with suppress(OSError):
                hello = channel.receive().values
                if secrets.compare_digest(str(hello["secret"]), secret):
                    connection.settimeout(None)
                    found[hello["process"]] = channel
                    continue
            channel.close()
    return [found[number] for number in sorted(found)]


def _connected(place: Place) -> Channel:
    """The channel to process 0."""
    address = json.loads(_store().blocking_key_value_get(KEY, 1000 * TO_BEGIN))
    host = place.coordinator.rpartition(":")[0].strip("[]")
    channel = Channel(socket.create_connection((host, address["port"])))
    channel.send({"secret": address["secret"], "process": place.process})
    return channel


def _store() -> Any:
    from jax._src import distributed  # it has no public name

    return distributed.global_state.client


def leave(code: int) -> None:
    """Ends this process at once, because jax would wait for one that is lost."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def lost_leader() -> None:
    """Ends a process whose leader has ended."""
    leave(stop(DeviceError.exit_code, f"process 0 {ENDED}"))
