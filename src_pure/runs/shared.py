"""A program whose lanes are divided between the processes of a training: process 0 leads, the others follow.

Each process trains lanes of its own with a program of its own, on its own devices. Lanes are grouped as on the devices
of a single process, so they get the same numbers there.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from src_pure.build import Experiment, build
from src_pure.config.files import parse_yaml
from src_pure.device import computing
from src_pure.errors import ConfigError, Main, exit_code, explain
from src_pure.runs import hosts
from src_pure.runs.blocks import width_of
from src_pure.runs.channel import Channel, Message
from src_pure.runs.hosts import Group
from src_pure.runs.preemption import stop_on_signals
from src_pure.runs.process import differences, numeric_settings
from src_pure.runs.program import Program, Signals, State
from src_pure.runs.programs import Programs
from src_pure.types import Metrics, TrainState

Command = tuple[dict[str, Any], Sequence[Any]]  # values and arrays


def shares(num_lanes: int, width: int, devices: Sequence[int]) -> list[range]:
    """The lanes of each process: consecutive whole blocks of `width`, as many for each device; empty if none are left.

    devices: of each process.
    """
    lanes_per_device = -(-num_lanes // (width * sum(devices))) * width
    ends = [min(num_lanes, int(end) * lanes_per_device) for end in np.cumsum([0, *devices])]
    return [range(first, end) for first, end in pairwise(ends)]


def filled(share: range, num_lanes: int, least: int) -> list[int]:
    """The lanes of a share, with the last one repeated up to `least`: programs for fewer devices round differently."""
    return [*share, *[num_lanes - 1] * (least - len(share))]


def part(experiment: Experiment, lanes: Sequence[int]) -> Experiment:
    """The experiment with the lanes at these positions."""
    alone = tuple(experiment.alone[i] for i in lanes) if experiment.alone else ()
    return replace(experiment, lanes=tuple(experiment.lanes[i] for i in lanes), alone=alone)


@dataclass(frozen=True)
class SharedProgram(Program):
    """The program of all lanes, at process 0. The states that it takes and gives are those of its own lanes alone."""

    own: Program
    group: Group
    positions: Sequence[list[int]]  # of the lanes that each process computes
    kept: Sequence[int]  # how many of them are not repeated

    @property
    def signal(self) -> Signals | None:
        return self.group.signal

    def init(self) -> State:
        return self._call(self.own.init, "init")[0]

    def segment(self, state: State, num_updates: int) -> tuple[State, Metrics]:
        (state, metrics), answers = self._call(
            lambda: self.own.segment(state, num_updates), "segment", number=num_updates
        )
        return state, self._joined(metrics, answers, axis=1)

    def evaluate(self, state: State, update: int | np.ndarray) -> dict[str, Metrics]:
        updates = np.broadcast_to(np.asarray(update, np.int32), len(self.lanes))
        own, *others = [updates[lanes] for lanes in self.positions]
        commands = [({"do": "evaluate"}, [each]) for each in others]
        return self._joined(*self.group.call(lambda: self.own.evaluate(state, own), commands))

    def completed(self, state: State) -> np.ndarray:
        return self._joined(*self._call(lambda: self.own.completed(state), "completed"))

    def gather(self, state: State) -> TrainState:
        return self._joined(*self._call(lambda: self.own.gather(state), "gather"))

    def scatter(self, state: TrainState) -> State:
        parts = [jax.tree.map(lambda x, lanes=lanes: x[lanes], state) for lanes in self.positions]
        commands = [({"do": "scatter"}, jax.tree.leaves(tree)) for tree in parts[1:]]
        return self.group.call(lambda: self.own.scatter(parts[0]), commands)[0]

    def _call(self, own: Callable[[], Any], do: str, **values: int) -> tuple[Any, list[Message]]:
        return self.group.call(own, [({"do": do, **values}, ())] * len(self.group.others))

    def _joined(self, tree: Any, answers: Sequence[Message], axis: int = 0) -> Any:
        """The tree of all lanes; tree: of the lanes of process 0, in numpy arrays."""
        of_process = [jax.tree.leaves(tree), *(answer.arrays for answer in answers)]
        joined = [
            np.concatenate([x[(slice(None),) * axis + (slice(n),)] for x, n in zip(xs, self.kept, strict=True)], axis)
            for xs in zip(*of_process, strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(tree), joined)


class SharedPrograms(Programs):
    """The last program that all processes compiled, at process 0."""

    def __init__(self, group: Group):
        super().__init__()
        self.group = group
        self.devices: list[int] = []  # of each process

    def of(self, experiment: Experiment, warm_start: str | None, width: int | None) -> Program:
        """The program of an experiment, as Programs gives it; raises ConfigError also for unlike processes."""
        self.devices = self.devices or self._alike()
        num_lanes = len(experiment.lanes)
        devices = self.devices if experiment.settings.devices == "runs" else [1] * len(self.devices)
        width = width or width_of(experiment, sum(devices))
        found = shares(num_lanes, width, devices)
        lanes = [filled(x, num_lanes, width * n) for x, n in zip(found, devices, strict=True)]
        values = {"do": "compile", "config": experiment.config_yaml, "warm_start": warm_start, "width": width}
        commands = [(values | {"lanes": each}, ()) for each in lanes[1:]]
        own, answers = self.group.call(lambda: self._own(part(experiment, lanes[0]), warm_start, width), commands)
        everything: dict[str, Any] = vars(own) | {
            "lanes": experiment.lanes,
            "like": own.blocks.resized(own.like, num_lanes),
            "compile_seconds": max([own.compile_seconds, *(answer.values["seconds"] for answer in answers)]),
        }
        return SharedProgram(**everything, own=own, group=self.group, positions=lanes, kept=[*map(len, found)])

    def _own(self, experiment: Experiment, warm_start: str | None, width: int) -> Program:
        return super().of(experiment, warm_start, width)

    def _alike(self) -> list[int]:
        """The number of devices of each process; raises ConfigError if numbers would depend on the process."""
        commands = [({"do": "devices"}, ())] * len(self.group.others)
        settings, answers = self.group.call(numeric_settings, commands)
        for number, answer in enumerate(answers, 1):
            if found := differences(settings, answer.values["process"]):
                raise ConfigError(
                    f"processes that train together must be alike, in process {number} {', '.join(found)} in process 0"
                )
        return [jax.local_device_count(), *(answer.values["devices"] for answer in answers)]


class Follower:
    """Any process but process 0: its program and the state of its lanes."""

    program: Program
    state: State

    def __init__(self, command: Sequence[str], trust: Callable[[], Sequence[str]]):
        self.command = command
        self.trust = trust
        self.programs = Programs()

    def do(self, do: str, values: dict[str, Any], arrays: list[np.ndarray]) -> Command:
        """The answer to a command of process 0."""
        if do == "arguments":
            return {"arguments": hosts.digest(self.command)}, ()
        if do == "devices":
            return {"devices": jax.local_device_count(), "process": numeric_settings()}, ()
        if do == "compile":
            return self._compile(**values), ()
        if do == "init":
            self.state = self.program.init()
        if do == "scatter":
            like = jax.tree.structure(self.program.like)
            self.state = self.program.scatter(jax.tree.unflatten(like, arrays))
        if do == "segment":
            self.state, metrics = self.program.segment(self.state, values["number"])
            return {}, jax.tree.leaves(metrics)
        if do == "evaluate":
            return {}, jax.tree.leaves(self.program.evaluate(self.state, arrays[0]))
        if do == "completed":
            return {}, [self.program.completed(self.state)]
        if do == "gather":
            return {}, jax.tree.leaves(self.program.gather(self.state))
        return {}, ()

    def _compile(self, config: str, lanes: list[int], warm_start: str | None, width: int) -> dict[str, Any]:
        experiment = part(build(parse_yaml(config), self.trust()), lanes)
        self.program = self.programs.of(experiment, warm_start, width)
        return {"seconds": self.program.compile_seconds}


def follow(leader: Channel, follower: Follower) -> int:
    """The exit code, after doing what process 0 says until it ends this process.

    A signal is passed on with the next answer. Ends the process if process 0 has ended.
    """
    with stop_on_signals(float("inf")) as stop:  # process 0 sees to the grace period
        stop.training = True
        while True:
            try:
                values, arrays = leader.receive()
                do = values.pop("do")
                if do == "end":
                    break
                answer = answer_to(follower, do, values, arrays)
                leader.send(answer[0] | {"signal": stop.signal}, answer[1])
            except OSError:
                hosts.lost_leader()
    if values["lost"]:
        hosts.leave(values["code"])
    return values["code"]


def answer_to(follower: Follower, do: str, values: dict[str, Any], arrays: list[np.ndarray]) -> Command:
    """The answer, or the error in place of it: process 0 reports it. Prints the traceback of a bug."""
    try:
        with computing():
            return follower.do(do, values, arrays)
    except Exception as error:  # process 0 waits for an answer whatever goes wrong, and raises it
        code = exit_code(error)
        if code is None:
            traceback.print_exc(file=sys.stderr)
        return {"error": explain(error) or type(error).__name__, "code": code}, ()


def lead(group: Group, main: Main) -> int:
    """The exit code of `main`, which runs at process 0; all processes end with it."""
    code = 1
    try:
        code = main()
    finally:
        group.end(code)
    if group.lost:
        hosts.leave(code)
    return code
