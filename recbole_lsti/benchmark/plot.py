"""The comparison as a picture: the metric with its interval against the seconds of training, a point a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_lsti.benchmark.plan import Plan
from recbole_lsti.benchmark.tables import boards_of, main_metric, score

SOON = 0.1  # seconds; what takes less is drawn here, for the axis is logarithmic
LINES = 30  # of names that fit beside a board


def draw(plan: Plan, rows: list[dict[str, Any]], folder: Path) -> bool:
    """Write comparison.png and comparison.svg; returns False where there is nothing to draw."""
    boards = [(title, there) for title, there, _ in boards_of(plan, rows) if any(score(plan, row) for row in there)]
    if not boards:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5 * len(boards)), layout="constrained")
    for axes, (title, there) in zip(figure.subplots(len(boards), squeeze=False)[:, 0], boards, strict=True):
        _draw_board(axes, plan, title, there)
    figure.savefig(folder / "comparison.png", dpi=150)
    figure.savefig(folder / "comparison.svg", metadata={"Date": None})
    return True


def _draw_board(axes: Any, plan: Plan, title: str, rows: list[dict[str, Any]]) -> None:
    metric = main_metric(plan)
    points: list[tuple[float, float, str]] = []  # seconds, value, name
    for row in rows:
        value = score(plan, row)
        if value is None:
            continue
        ranking = "raw" if row.get(f"unseen:{metric}_mean") is None else "unseen"
        low, high = (row.get(f"{ranking}:{metric}_{end}") for end in ("low", "high"))
        spread = None if low is None or high is None else [[max(0.0, value - low)], [max(0.0, high - value)]]
        seconds = max(SOON, row["train_seconds"] or 0.0)
        marker, colour = ("s", "tab:gray") if row["control"] else ("o", "tab:blue")
        axes.errorbar([seconds], [value], yerr=spread, fmt=marker, color=colour, capsize=3)
        points.append((seconds, value, row["variant"]))
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training (mean over seeds)")
    axes.set_ylabel(f"{metric}, {'unseen items' if plan.ranking == 'full' else plan.ranking}, 95 % interval over users")
    axes.set_title(f"{title} (squares: controls)")
    axes.grid(alpha=0.3)
    _name_points(axes, points)


def _name_points(axes: Any, points: list[tuple[float, float, str]]) -> None:
    """Write the names beside the board, each on a line of its own, with a thread to its point: points lie close."""
    bottom, top = axes.get_ylim()
    points = sorted(points, key=lambda point: point[1])
    places = without_overlap([(value - bottom) / (top - bottom) for _, value, _ in points], 1 / max(LINES, len(points)))
    for (seconds, value, name), place in zip(points, places, strict=True):
        axes.annotate(
            name,
            (seconds, value),
            xytext=(1.02, place),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "tab:gray", "linewidth": 0.4, "relpos": (0.0, 0.5)},
        )


def without_overlap(places: list[float], height: float) -> list[float]:
    """Move rising places in [0, 1] so that neighbours are `height` apart and none lies above 1."""
    for at in range(1, len(places)):  # upwards, so that each is clear of the one below
        places[at] = max(places[at], places[at - 1] + height)
    ceiling = 1.0
    for at in reversed(range(len(places))):  # and down again, where that has pushed them out at the top
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - height
    return places
