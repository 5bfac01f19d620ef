"""The progress of a training and what is due next: checkpoints, evaluations and the length of segments."""

import time

import numpy as np
import pandas as pd

from src_pure.config.settings import Settings
from src_pure.runs.process import numeric_settings
from src_pure.runs.resume import Start


class Progress:
    """The progress of a training.

    `elapsed` counts seconds of this process alone; `seconds` and `wall_seconds` include the processes that it
    continues, from the fields `*_before`.
    """

    def __init__(self, settings: Settings, start: Start):
        self.settings = settings
        self.begun = self.saved = time.perf_counter()
        self.first = self.done = start.update
        self.seconds_before = start.checkpoint.seconds if start.checkpoint else 0.0
        self.wall_before = start.checkpoint.wall_seconds if start.checkpoint else 0.0
        self.process = numeric_settings()
        self.continued = start.continued  # where the run continued under other settings of the process
        self.elapsed = 0.0
        self.completed: np.ndarray = np.array([], int)  # updates of each run, [R]
        self.unsaved: list[pd.DataFrame] = []  # rows since the last checkpoint, with the columns of its score

    @property
    def finished(self) -> bool:
        return self.done == self.settings.num_updates

    @property
    def seconds(self) -> float:
        """Seconds of training, without compilation."""
        return self.seconds_before + self.elapsed

    @property
    def wall_seconds(self) -> float:
        return self.wall_before + time.perf_counter() - self.begun

    def advance(self, rows: pd.DataFrame, num_updates: int, completed: np.ndarray, seconds: float) -> None:
        """Counts a segment; completed: updates of each run since the beginning, [R]."""
        if self.done == self.first:
            self.saved = time.perf_counter()  # the clock starts after compilation
        metric = self.settings.checkpoint.metric
        self.unsaved.append(rows[[name for name in rows if name in ("run", "episodes", metric)]])
        self.done += num_updates
        self.completed = completed
        self.elapsed += seconds

    def count_from_here(self) -> None:
        """Restarts the count of rows and minutes at the checkpoint that is now being written."""
        self.saved, self.unsaved = time.perf_counter(), []

    def checkpoint_due(self) -> bool:
        updates, minutes = self.settings.checkpoint.updates, self.settings.checkpoint.minutes
        by_count = updates is not None and self.done % updates == 0
        by_clock = minutes is not None and time.perf_counter() - self.saved >= 60 * minutes
        return by_count or by_clock or self.finished

    def evaluation_due(self) -> bool:
        interval = self.settings.evaluation.interval
        return self.finished or (interval > 0 and self.done > 0 and self.done % interval == 0)

    def segment_length(self, max_updates: int) -> int:
        """The number of updates in the next segment: as many as fit into log_seconds, up to whatever is due next.

        A segment takes at most half of grace_seconds and leaves the other half for saving.
        """
        settings = self.settings
        left = settings.num_updates - self.done
        in_time = left
        if settings.log_seconds:
            known = self.done - self.first
            seconds = min(settings.log_seconds, settings.grace_seconds / 2)
            in_time = int(seconds * known / self.elapsed) if known else 1
        for interval in (settings.evaluation.interval, settings.checkpoint.updates):
            if interval:
                left = min(left, interval - self.done % interval)
        return max(1, min(in_time, left, max_updates))
