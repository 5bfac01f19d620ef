"""The report of a sweep as one HTML page that needs no other file."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from src_pure.results.ranking import TRIMMED, Point, Ranking
from src_pure.results.statistics import probability_of_improvement
from src_pure.results.swept import text

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #666; --page: #f6f6f4; --card: #fff; --line: #e2e2de;
  --accent: #0072b2; --mark: #eaf4fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e2; --soft: #a3a3a0; --page: #111; --card: #1a1a1a; --line: #333; --accent: #6cb8e6;
    --mark: #1b2c38; }
  figure img { filter: invert(0.898) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; }
p { margin: 8px 0; max-width: 52rem; }
.soft, figcaption { color: var(--soft); font-size: 0.93rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 20px 0; }
.tile, figure, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; }
figure { margin: 12px 0; padding: 16px; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin: 0 0 10px; max-width: 52rem; }
.scroll { max-height: 520px; overflow: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--card); padding: 0; }
th button { all: unset; cursor: pointer; padding: 8px 12px; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
th[aria-sort=ascending] button::after { content: " \\25B2"; color: var(--accent); }
th[aria-sort=descending] button::after { content: " \\25BC"; color: var(--accent); }
tr.best td { background: var(--mark); font-weight: 600; }
.word { text-align: left; }
code, pre { font: 0.88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px;
  overflow-x: auto; }
"""
SCRIPT = """
for (const [column, head] of document.querySelectorAll("th").entries()) {
  head.firstElementChild.addEventListener("click", () => {
    const body = document.querySelector("tbody"), up = head.getAttribute("aria-sort") !== "ascending";
    const key = row => row.cells[column].dataset.value;
    const order = (a, b) => {
      const x = key(a), y = key(b), numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return (numbers ? x - y : String(x).localeCompare(y)) * (up ? 1 : -1);
    };
    body.append(...[...body.rows].sort(order));
    document.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
"""


class Picture(NamedTuple):
    """A figure of the page."""

    title: str
    caption: str
    path: Path


class Cell(NamedTuple):
    """A cell of the table: what is shown and what it is sorted by."""

    shown: str
    value: str
    word: bool = False


def page(ranking: Ranking, default: Point, is_default: bool, pictures: Sequence[Picture], fresh: Point | None) -> str:
    """The HTML text; every picture's file is embedded."""
    name = escape(ranking.folder.resolve().name)
    sections = [
        f"<h1>Sweep {name}</h1><p class=soft>{escape(subtitle(ranking))}</p>",
        tiles(ranking, fresh),
        *(f"<p>{escape(line)}</p>" for line in notes(ranking, default, is_default, fresh)),
        "<h2>Ranking</h2><p class=soft>Click on a column's name to sort.</p>",
        f"<div class=scroll>{table(ranking, default, is_default)}</div>",
        *(figure(picture) for picture in pictures),
        f"<h2>The best point again</h2><p>best.yaml next to this page holds its whole configuration:</p>"
        f"<pre>{escape(commands(ranking))}</pre>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Sweep {name}</title>'
    body = "\n".join(sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n'
        f"<body><main>\n{body}\n</main><script>{SCRIPT}</script></body></html>\n"
    )


def subtitle(ranking: Ranking) -> str:
    keys = ", ".join(key.name for key in ranking.keys)
    return f"{plural(len(ranking.points), 'point')} over {keys}; ranked by {ranking.metric}, higher is better"


def tiles(ranking: Ranking, fresh: Point | None) -> str:
    """The most important numbers."""
    best, unranked = ranking.best, ranking.unranked
    done = len(ranking.runs) - len(unranked)
    facts = [
        (f"best {ranking.metric}", number(best.score), score_text(best)),
        *([("the same with fresh seeds", number(fresh.score), score_text(fresh))] if fresh else []),
        ("best point", f"point {best.number}", values_text(ranking, best)),
        ("runs finished", f"{done - failed(ranking):,} of {len(ranking.runs):,}", unfinished_text(ranking)),
    ]
    return "<div class=tiles>" + "".join(
        f"<div class=tile><span class=soft>{escape(name)}</span><b>{escape(value)}</b>"
        f"<span class=soft>{escape(detail)}</span></div>"
        for name, value, detail in facts
    ) + "</div>"  # fmt: skip


def notes(ranking: Ranking, default: Point, is_default: bool, fresh: Point | None) -> list[str]:
    """What a reader has to know about the numbers, one paragraph each."""
    seeds = sorted({len(point.scores) for point in ranking.points})
    spread = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    episodes = max(point.episodes // max(len(point.scores) - point.failed, 1) for point in ranking.points)
    score = "interquartile mean (IQM: the mean of the middle half)"
    lines = [
        f"The score of a point is the {score} over {spread} seed{'s' if seeds[-1] > 1 else ''} of {ranking.metric} "
        f"in the final evaluation: {episodes:,} fresh episodes per run, sampled policy. " + interval_note(seeds)
    ]
    if failed(ranking):
        as_what = "0" if ranking.metric == "success_rate" else f"the lowest value seen, {number(ranking.worst)}"
        lines.append(
            f"{plural(failed(ranking), 'run')} failed; failed runs count as {as_what}. With four seeds or more, the "
            "IQM leaves out the lowest quarter, so a single failure may not show in it: compare the mean and the "
            "column failed."
        )
    if len(ranking.unranked):
        lines.append(
            f"The sweep is unfinished: {unfinished_text(ranking)}. Only runs that came to their end are ranked."
        )
    other = "the median point: no ranked point equals the base configuration of the sweep"
    which = "the default: the base configuration of the sweep" if is_default else other
    lines.append(f"Point {default.number}, with which others are compared, is {which}.")
    lines.append(
        f"The best of {plural(len(ranking.points), 'point')} is partly the luckiest: expect less of new seeds. "
        + (rerun_note(ranking, fresh) if fresh else "--rerun N trains it with N fresh seeds and shows by how much.")
    )
    return lines


def interval_note(seeds: Sequence[int]) -> str:
    """How intervals are made for these numbers of seeds."""
    if seeds[-1] == 1:
        return "With one seed there is no interval: differences between points may be chance."
    bootstrap = "stratified bootstrap over seeds (2,000 samples, expanded percentiles)"
    student = "a t-interval corrected for skewness"
    kinds = [student] if seeds[-1] < TRIMMED else [bootstrap] if seeds[0] >= TRIMMED else [bootstrap, student]
    text = f"Intervals hold 95 %: {kinds[0]}"
    text += f", for fewer than {TRIMMED} seeds {kinds[1]}" if len(kinds) > 1 else ""
    return f"{text}. They are of single points, not corrected for comparing many."


def rerun_note(ranking: Ranking, fresh: Point) -> str:
    """The selection bias, of the IQM and of the mean, which also sees rare failures."""
    best = ranking.best
    lost = f"; {fresh.failed} of these runs failed" if fresh.failed else ""
    return (
        f"With {plural(len(fresh.scores), 'fresh seed')} its IQM is {number(fresh.score)} instead of "
        f"{number(best.score)}, a selection bias of {number(best.score - fresh.score)}; its mean is "
        f"{number(fresh.mean)} instead of {number(best.mean)}, a bias of {number(best.mean - fresh.mean)}{lost}."
    )


def table(ranking: Ranking, default: Point, is_default: bool) -> str:
    """The ranking as an HTML table."""
    compared = "P(> default)" if is_default else "P(> median)"
    heads = ["rank", "point", *(key.label for key in ranking.keys), ranking.metric, "95 % interval", "mean", "seeds",
             "failed", compared]  # fmt: skip
    titles = dict(zip(heads[2:], [key.name for key in ranking.keys], strict=False))
    titles[compared] = f"probability that a run of this point beats one of point {default.number} (arXiv:2108.13264)"
    head = "".join(
        f'<th title="{escape(titles.get(name, name))}"><button>{escape(name)}</button></th>' for name in heads
    )
    rows = []
    for place, point in enumerate(ranking.points):
        cells = row_cells(ranking, point, place + 1, default, is_default)
        columns = "".join(
            f'<td data-value="{escape(cell.value)}"{" class=word" if cell.word else ""}>{escape(cell.shown)}</td>'
            for cell in cells
        )
        rows.append(f"<tr{' class=best' if place == 0 else ''}>{columns}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def row_cells(ranking: Ranking, point: Point, place: int, default: Point, is_default: bool) -> list[Cell]:
    """The cells of one point."""
    better = probability_of_improvement([point.scores], [default.scores])
    marked = " (default)" if point is default and is_default else ""
    low = repr(point.interval[0]) if point.interval else ""
    return [
        Cell(str(place), str(place)),
        Cell(f"{point.number}{marked}", str(point.number)),
        *(
            Cell(text(point.values[key.name]), str(point.values[key.name]), not key.numeric)
            for key in ranking.keys
        ),
        Cell(number(point.score), repr(point.score)),
        Cell(interval_text(point) if point.interval else "none", low),
        Cell(number(point.mean), repr(point.mean)),
        Cell(str(len(point.scores)), str(len(point.scores))),
        Cell(str(point.failed), str(point.failed)),
        Cell("" if point is default else f"{better:.2f}", repr(better)),
    ]  # fmt: skip


def figure(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    return (
        f"<h2>{escape(picture.title)}</h2><figure><figcaption>{escape(picture.caption)}</figcaption>"
        f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}"></figure>'
    )


def commands(ranking: Ranking) -> str:
    return (
        "python trainer_pure.py --config best.yaml run_dir=runs/best\n"
        f"python scripts/sweep_report.py {ranking.folder} --metric {ranking.metric} --rerun 10"
    )


def failed(ranking: Ranking) -> int:
    return int((ranking.runs["state"] == "failed").sum())


def unfinished_text(ranking: Ranking) -> str:
    """Which runs are not among the finished ones: 2 failed, 3 running."""
    counts = ranking.runs["state"].value_counts()
    listed = [f"{count:,} {state}" for state, count in counts.items() if state != "finished"]
    return ", ".join(listed) or "none failed"


def values_text(ranking: Ranking, point: Point) -> str:
    return ", ".join(f"{key.label} {text(point.values[key.name])}" for key in ranking.keys)


def interval_text(point: Point) -> str:
    if point.interval is None:
        return "no interval"
    return f"{number(point.interval[0])} to {number(point.interval[1])}"


def score_text(point: Point) -> str:
    return f"{interval_text(point)}, mean {number(point.mean)}"


def number(value: float) -> str:
    """A score with three decimals, or fewer digits if it is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}" if abs(value) < 1e6 else f"{value:.3g}"


def plural(count: int, name: str, several: str | None = None) -> str:
    return f"{count:,} {name if count == 1 else several or name + 's'}"
