"""The report of a sweep: pictures, one HTML page, and the configuration of the best point."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src_pure.config.files import to_yaml
from src_pure.config.names import dotted, harmless
from src_pure.errors import ConfigError
from src_pure.results.importance import importance
from src_pure.results.landscape_plots import draw_importance, draw_marginals, draw_pairs, draw_parallel
from src_pure.results.ranking import Point, Ranking, default_point, interval_of, run_scores
from src_pure.results.reading import (
    config_of_run,
    read_batches,
    read_run,
    read_runs,
)
from src_pure.results.statistics import iqm
from src_pure.results.sweep_page import Picture, number, page
from src_pure.results.sweep_plots import SHOWN, draw_curves, draw_profiles, draw_ranking, draw_rerun, save
from src_pure.runs.atomic import replacing
from src_pure.runs.folder import is_there
from src_pure.runs.resume import read_config
from src_pure.runs.rundir import CONFIG, SUMMARY
from src_pure.sweeps.folder import BATCHES, read_sweep

PAGE, BEST, RERUN = "index.html", "best.yaml", "rerun"
LARGEST_SEED = 2**31


class Drawn(NamedTuple):
    """A figure and its text on the page."""

    name: str  # of its file, without the ending
    figure: Any  # of matplotlib
    title: str
    caption: str


class Rerun(NamedTuple):
    """Fresh seeds of the best point."""

    folder: Path
    seed: int
    num_seeds: int


def best_config(ranking: Ranking) -> dict[str, Any]:
    """The resolved configuration of the best point, with its seeds if they follow each other, else with the first."""
    best = ranking.best
    runs = ranking.runs.set_index("run")
    run = best.runs[int(np.argmin(best.seeds))]
    config = config_of_run(ranking.folder / BATCHES / str(runs.loc[run, "batch"]), run)
    seeds = sorted(best.seeds)
    consecutive = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    return config | {"seed": seeds[0], "num_seeds": len(seeds) if consecutive else 1}


def write_best(ranking: Ranking, out: Path) -> Path:
    """best.yaml, which `trainer_pure.py --config` trains."""
    best = ranking.best
    comment = f"# Point {best.number}, best of {len(ranking.points):,}: {ranking.metric} {number(best.score)}\n"
    with replacing(out / BEST) as file:
        file.write((comment + to_yaml(best_config(ranking))).encode())
    return out / BEST


def plan_rerun(ranking: Ranking, num_seeds: int, out: Path) -> Rerun:
    """Fresh seeds for the best point: none of them was used in the sweep.

    Raises ConfigError if the folder holds other seeds, or those of another point.
    """
    folder, used = out / RERUN, ranking.runs["seed"]
    first = int(used.max()) + 1
    if first + num_seeds > LARGEST_SEED:
        first = 0
    if first == 0 and num_seeds > used.min():
        raise ConfigError(f"--rerun {num_seeds} needs as many seeds below 2**31 that the sweep has not used")
    if not is_there(folder / CONFIG):
        return Rerun(folder, first, num_seeds)
    if not is_of_best(ranking, folder):
        raise ConfigError(f"{folder} holds fresh seeds of another point; delete it, or choose another --out")
    config = read_config(folder)
    if (config["seed"], config["num_seeds"]) != (first, num_seeds):
        have = f"seeds {config['seed']} to {config['seed'] + config['num_seeds'] - 1}"
        raise ConfigError(f"{folder} holds {have}, not {num_seeds} from {first} on; delete it, or choose another --out")
    return Rerun(folder, first, num_seeds)


def is_of_best(ranking: Ranking, folder: Path) -> bool:
    """Whether a run folder trains the best point, with whatever seeds."""
    found, wanted = dotted(read_config(folder)), dotted(best_config(ranking))
    names = [name for name in found | wanted if not harmless(name) and name not in ("seed", "num_seeds")]
    return all(found.get(name) == wanted.get(name) for name in names)


def fresh_point(ranking: Ranking, out: Path) -> Point | None:
    """The best point with fresh seeds; None if they have not been trained to their end."""
    folder = out / RERUN
    if not is_there(folder / SUMMARY) or not is_of_best(ranking, folder):
        return None
    runs = read_runs(folder)
    if runs["state"].eq("failed").all():
        scores, failures, episodes = np.full(len(runs), ranking.worst), len(runs), 0
    else:
        rows, _ = run_scores(runs, read_run(folder, "evaluation"), ranking.metric)
        failures = int((rows["state"] == "failed").sum())
        rows.loc[rows["state"] == "failed", "score"] = ranking.worst
        scores, episodes = rows["score"].to_numpy(float), int(rows["episodes"].sum())
    return Point(
        number=ranking.best.number,
        values=ranking.best.values,
        runs=tuple(runs["run"].tolist()),
        seeds=tuple(runs["seed"].tolist()),
        scores=scores,
        failed=failures,
        episodes=episodes,
        score=float(iqm(scores)),
        interval=interval_of(scores, ranking.metric),
    )


def write_report(ranking: Ranking, out: Path) -> Path:
    """The page, after writing it and the pictures."""
    default, is_default = default_point(ranking, read_sweep(ranking.folder))
    fresh = fresh_point(ranking, out)
    called = "default" if is_default else "median point"
    pictures = []
    for drawn in [*of_scores(ranking, default, called, fresh), *of_keys(ranking)]:
        path = out / f"{drawn.name}.png"
        save(drawn.figure, path)
        pictures.append(Picture(drawn.title, drawn.caption, path))
    with replacing(out / PAGE) as file:
        file.write(page(ranking, default, is_default, pictures, fresh).encode())
    return out / PAGE


def of_scores(ranking: Ranking, default: Point, called: str, fresh: Point | None) -> Iterator[Drawn]:
    """The figures of scores."""
    shown = min(len(ranking.points), SHOWN)
    caption = f"Dots: runs. Bars: IQM. Lines: its 95 % interval. Diamonds: mean. Orange, with a star: the {called}."
    yield Drawn("ranking", draw_ranking(ranking, default), f"The best {shown} points", caption)
    if fresh:
        yield Drawn("rerun", draw_rerun(ranking, fresh), "Selection bias",
                    "The best point as it was ranked, and trained with seeds that the sweep has not used.")  # fmt: skip
    if frames := curves(ranking, default, called):
        yield Drawn("curves", draw_curves(frames, ranking.metric), "Learning curves",
                    "Lines: mean over runs. Bands: 95 % t-intervals of the mean, corrected for skewness.")  # fmt: skip
    yield Drawn("profiles", draw_profiles(ranking, default, called), "Performance profiles",
                "How many of the runs score above s. Bands: pointwise 95 % bootstrap intervals.")  # fmt: skip


def of_keys(ranking: Ranking) -> Iterator[Drawn]:
    """The figures of how scores depend on the keys."""
    found, several = importance(ranking), len(ranking.keys) > 1
    if several or found.noise is not None:
        yield Drawn("importance", draw_importance(ranking, found), "Importance of each key",
                    importance_caption(found.total is not None, found.noise is not None))  # fmt: skip
    yield Drawn("marginals", draw_marginals(ranking), "Each key by itself",
                "Grey: IQM of each point. Blue: mean over the points with this value (or in this bin, if there are "
                "many values), with its 95 % stratified bootstrap interval over seeds; strata are points.")  # fmt: skip
    if several:
        yield Drawn("pairs", draw_pairs(ranking, found), "Two keys at a time",
                    "Mean score of the points with both values, or in both bins (~: their middle).")  # fmt: skip
        yield Drawn("parallel", draw_parallel(ranking, found), "Parallel coordinates",
                    "One line for each point, colored by its score. Orange: the best point.")  # fmt: skip


def importance_caption(grid: bool, noise: bool) -> str:
    """How the shares were found."""
    how = (
        "Functional analysis of variance, exact because the points are a complete grid. Light: with all interactions "
        "that the key takes part in."
        if grid
        else "First-order shares by bins of equally many points, corrected for chance (epsilon squared). What the keys "
        "leave unexplained is interactions" + (", seeds" if noise else " and seeds") + " and the coarseness of bins."
    )
    chance = " Orange marks: a key without effect gets more than this in 5 % of cases." if not grid else ""
    return how + chance + ("" if noise else " With one seed for each point, chance cannot be told from an effect.")


def curves(ranking: Ranking, default: Point, called: str) -> dict[str, pd.DataFrame]:
    """The metrics of the best and of the default point by label; empty if they lack the metric."""
    frames = {}
    for label, point in (("best point", ranking.best), (called, default)):
        if label != "best point" and point is ranking.best:
            continue
        frame = metrics_of(ranking, point)
        if ranking.metric in frame:
            frames[f"{label} {point.number}"] = frame
    return frames


def metrics_of(ranking: Ranking, point: Point) -> pd.DataFrame:
    """The metrics of the runs of one point."""
    runs = ranking.runs[ranking.runs["run"].isin(point.runs)]
    batches = ranking.runs[ranking.runs["batch"].isin(runs["batch"])]
    rows = read_batches(ranking.folder, batches, "metrics")
    return rows[rows["run"].isin(point.runs)]
