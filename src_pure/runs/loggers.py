"""Sinks for the rows of a segment other than the run folder: a terminal, Weights & Biases, TensorBoard."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TextIO

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from src_pure.errors import ConfigError
from src_pure.runs.columns import floats, main_metric, weighted_means

MOST_SEPARATE_RUNS = 8  # with more, nobody can tell the curves in a chart apart


class Sink(Protocol):
    """Receives the rows of every segment and the seconds of training until its end, without compilation."""

    def log(self, frame: pd.DataFrame, elapsed: float) -> None: ...

    def close(self) -> None: ...


# ---------------------------------------------------------------------------------------------------------------------
# on the terminal


class Status(NamedTuple):
    """The progress of training as text."""

    update: int
    steps: str
    speed: str
    score: str
    left: str


class Meter:
    """Computes a Status from each segment. The speed of a continued training counts only the updates made since."""

    def __init__(self, total_updates: int):
        self.total_updates = total_updates
        self.first_update: int | None = None

    def read(self, frame: pd.DataFrame, elapsed: float) -> Status:
        """The Status after the segment `frame`; elapsed: seconds of training since the first segment began."""
        if self.first_update is None:
            self.first_update = int(frame["update"].min()) - 1
        update, env_steps, num_runs = int(frame["update"].max()), int(frame["env_steps"].max()), frame["run"].nunique()
        seconds_per_update = elapsed / (update - self.first_update)
        steps_per_second = num_runs * env_steps / update / max(seconds_per_update, 1e-9)
        return Status(
            update=update,
            steps=f"{env_steps:,} steps" + (f" x {num_runs} runs" if num_runs > 1 else ""),
            speed=f"{steps_per_second:,.0f} steps/s",
            score=score(frame),
            left=f"left {clock(seconds_per_update * (self.total_updates - update))}",
        )


def score(frame: pd.DataFrame) -> str:
    """The success rate, or else the return, over all episodes of the frame, and their number."""
    metric = main_metric(frame)
    known = frame[frame[metric].notna()]
    episodes = int(known["episodes"].sum())
    if not episodes:
        return "no episode ended"
    mean = weighted_means(known, metric, [np.zeros(len(known))]).iloc[0]
    return f"{metric} {mean:.2f} ({episodes:,} episode{'s' if episodes > 1 else ''})"


def clock(seconds: float) -> str:
    """The duration as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressBar:
    """A progress bar on a terminal, updated after every segment."""

    def __init__(self, total_updates: int, console: Console):
        self.meter = Meter(total_updates)
        columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=console, auto_refresh=False)
        self.task = self.bar.add_task("waiting for the first segment", total=total_updates)
        self.bar.start()

    def log(self, frame: pd.DataFrame, elapsed: float) -> None:
        status = self.meter.read(frame, elapsed)
        description = f"{status.score}  {status.speed}  {status.left}"
        self.bar.update(self.task, completed=status.update, description=description, refresh=True)

    def close(self) -> None:
        self.bar.stop()


class PlainLines:
    """One line per segment, for files and pipes."""

    def __init__(self, total_updates: int, stream: TextIO):
        self.meter = Meter(total_updates)
        self.stream = stream

    def log(self, frame: pd.DataFrame, elapsed: float) -> None:
        status = self.meter.read(frame, elapsed)
        place = f"update {status.update}/{self.meter.total_updates}"
        print(place, status.steps, status.speed, status.score, status.left, sep="  ", file=self.stream, flush=True)

    def close(self) -> None:
        pass


def progress(total_updates: int, stream: TextIO) -> Sink:
    """A bar if the stream is a terminal that can move its cursor, else lines."""
    console = Console(file=stream)
    if console.is_terminal and not console.is_dumb_terminal:
        return ProgressBar(total_updates, console)
    return PlainLines(total_updates, stream)


# ---------------------------------------------------------------------------------------------------------------------
# in dashboards


def points(frame: pd.DataFrame) -> list[dict[str, float]]:
    """One dict per update: the mean of every metric over runs, and for a few runs each run's own value as well.

    Means over episodes weight runs by their episodes. Missing values are left out. Keys: `metric`, `run_<run>/metric`.
    """
    update = frame["update"].to_numpy()
    by_run = {run: rows.set_index("update") for run, rows in frame.groupby("run")}
    columns: dict[str, Any] = {"env_steps": floats(frame["env_steps"].groupby(update).max())}
    for metric in (name for name in frame if name not in ("run", "seed", "update", "env_steps")):
        columns[metric] = weighted_means(frame, metric, [update])
        if 1 < len(by_run) <= MOST_SEPARATE_RUNS:
            columns |= {f"run_{run}/{metric}": rows[metric] for run, rows in by_run.items()}
    rows = pd.DataFrame(columns).to_dict(orient="index")
    return [{"update": int(u)} | {k: v for k, v in row.items() if pd.notna(v)} for u, row in rows.items()]


class WandbSink:
    """One Weights & Biases run for the whole program, files in <folder>/wandb; `offline` needs no network or key.

    run_id: its id in Weights & Biases, which stays the same when the run is continued.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        mode: Literal["online", "offline", "disabled"],
        project: str,
        group: str | None,
        name: str | None,
        config: dict[str, Any],
    ):
        import wandb  # imported here because it takes a second and wraps the standard streams

        settings = wandb.Settings(console="off", silent=mode != "online")  # online, it prints the dashboard URL
        run: dict[str, Any] = {"id": run_id, "project": project, "group": group, "name": name, "config": config}
        try:
            self.run = wandb.init(dir=folder, mode=mode, resume="allow", settings=settings, **run)
        except wandb.Error as error:
            raise ConfigError(f"wandb.mode={mode} failed: {error}; try wandb.mode=offline") from error
        self.run.define_metric("*", step_metric="env_steps")

    def log(self, frame: pd.DataFrame, elapsed: float) -> None:
        for point in points(frame):
            self.run.log(point)

    def close(self) -> None:
        self.run.finish()


class TensorBoardSink:
    """Scalars against environment steps, in <folder>/tensorboard."""

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter  # imported here because most runs do not need it

        self.writer = SummaryWriter(logdir=str(folder / "tensorboard"))

    def log(self, frame: pd.DataFrame, elapsed: float) -> None:
        for point in points(frame):
            for name, value in point.items():
                self.writer.add_scalar(name, value, global_step=int(point["env_steps"]))
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
