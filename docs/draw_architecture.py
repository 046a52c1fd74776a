"""Draw the architecture of LSTI, as recbole_lsti/model/lsti.py computes it: docs/architecture.svg.

    python docs/draw_architecture.py [--png FILE]

Needs matplotlib (extra `dev`). The same code gives the same file: no date and no random ids are written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

LONG, SHORT, GATE, POPULARITY, REPEAT, INK, QUIET = (
    "#2f6db5",
    "#d9772b",
    "#5b4a9e",
    "#6b7280",
    "#2f8f6b",
    "#1f2933",
    "#7b8794",
)
WIDTH, HEIGHT = 100.0, 94.0  # the coordinates of the drawing


def main() -> None:
    """Write the SVG beside this file and, where asked for, a PNG to look at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--png", type=Path, help="write a PNG there, too")
    arguments = parser.parse_args()
    mpl.rcParams.update(
        {"svg.hashsalt": "recbole_lsti", "font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans"}
    )
    figure = draw()
    figure.savefig(Path(__file__).with_name("architecture.svg"), metadata={"Date": None})
    if arguments.png:
        figure.savefig(arguments.png, dpi=110)


def draw() -> Figure:
    """Return the drawing, top to bottom in the order in which data meets the parts."""
    figure = Figure(figsize=(8.6, 8.6 * HEIGHT / WIDTH))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    ax.add_patch(
        FancyBboxPatch((0.6, 0.6), WIDTH - 1.2, HEIGHT - 1.2, "round,pad=0,rounding_size=2", fc="white", ec="#dfe3e8")
    )
    history(ax)
    embeddings(ax)
    mean = "LayerNorm + mean\nof $E$ so far  →  $l_t$"
    branch(ax, 27, LONG, "Long-term branch", "reads the whole history", "LSTM", mean)
    branch(
        ax, 73, SHORT, "Short-term branch", "reads the last W items", "Windowed self-attention", "LayerNorm  →  $s_t$"
    )
    fusion(ax)
    scores(ax)
    return figure


def history(ax: Axes) -> None:
    """The items of one user, oldest first; the last W of them are the short-term part."""
    names = ["$x_1$", "$x_2$", "$x_3$", "$\\cdots$", "", "", "", "", "$x_{t-1}$", "$x_t$"]
    left, step, y = 20.5, 7.0, 83.5
    text(ax, 4, y + 2.5, "history", INK, size=11, ha="left", weight="bold")
    for number, name in enumerate(names):
        recent = number >= 6
        if name == "$\\cdots$":
            text(ax, left + number * step + 2.7, y + 2.5, name, QUIET, size=13)
            continue
        box(ax, left + number * step, y, 5.4, 5, SHORT if recent else LONG, name, size=10.5)
    bracket(ax, left, left + 9 * step + 5.4, 90.6, LONG, "the whole history")
    bracket(ax, left + 6 * step, left + 9 * step + 5.4, 81.2, SHORT, "last W items", below=True)


def embeddings(ax: Axes) -> None:
    """E, LayerNorm and dropout: the input of both branches."""
    box(ax, 7, 70.5, 86, 5.6, INK, "item embedding $E$  →  LayerNorm  →  dropout:   $e_1, \\ldots, e_t$", size=10.5)
    arrow(ax, (50, 82.6), (50, 76.3))


def branch(ax: Axes, x: float, colour: str, title: str, reads: str, mixer: str, out: str) -> None:
    """n_layers pre-norm residual blocks: the mixer over steps, then a feed-forward layer."""
    width, bottom, top = 40.0, 41.0, 66.5
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, bottom),
            width,
            top - bottom,
            "round,pad=0,rounding_size=1.4",
            fc=tint(colour, 0.07),
            ec=colour,
            lw=1.3,
        )
    )
    text(ax, x - width / 2 + 8.5, top - 2.9, title, colour, size=11, ha="left", weight="bold")
    text(ax, x - width / 2 + 8.5, top - 6.1, reads, QUIET, size=9, ha="left")
    text(ax, x + width / 2 - 2.3, top - 2.9, "× n_layers", colour, size=9, ha="right")
    rail = x - width / 2 + 4  # the residual stream, beside the layers
    inner = x - width / 2 + 8.5
    ax.plot([rail, rail], [70.5, bottom + 1.9], color=colour, lw=1.1)
    for y, name in ((52.6, mixer), (44.0, "Feed-forward")):
        box(ax, inner, y, 9.5, 5.2, colour, "LayerNorm", size=8)
        box(ax, inner + 11, y, 18.2, 5.2, colour, name, size=8.6, fill=0.22)
        middle = y + 2.6
        arrow(ax, (rail, middle), (inner, middle), colour)
        ax.plot([inner + 9.5, inner + 11], [middle, middle], color=colour, lw=1.1)
        ax.plot([inner + 20, inner + 20, rail + 1.1], [y, y - 1.1, y - 1.1], color=colour, lw=1.1)
        ax.text(
            rail,
            y - 1.1,
            "+",
            color=colour,
            size=9,
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.12", "fc": "white", "ec": colour, "lw": 1.1},
        )
    ax.plot([rail, rail, x], [bottom + 1.9, bottom - 1.6, bottom - 1.6], color=colour, lw=1.1)
    arrow(ax, (x, bottom - 1.6), (x, 36.8), colour)
    box(ax, x - 9, 31.6, 18, 5, colour, out, size=8.8)


def fusion(ax: Axes) -> None:
    """The gate weighs the two normalised branches, dimension by dimension."""
    box(ax, 40.5, 30.2, 19, 7.8, GATE, "gate\n$g = \\sigma(\\mathrm{MLP}[l_t, s_t, e_t])$", size=9.2, fill=0.16)
    arrow(ax, (36, 34.1), (40.2, 34.1), LONG)
    arrow(ax, (64, 34.1), (59.8, 34.1), SHORT)
    arrow(ax, (50, 70.3), (50, 38.4), QUIET)
    text(ax, 50.9, 39.6, "$e_t$", QUIET, size=9.5, ha="left")
    box(ax, 30.5, 20, 39, 5.6, GATE, "user vector   $u_t = g \\odot l_t + (1-g) \\odot s_t$", size=10.5, fill=0.16)
    arrow(ax, (50, 30), (50, 26), GATE)
    arrow(ax, (33, 31.4), (38, 26), LONG)
    arrow(ax, (67, 31.4), (62, 26), SHORT)


def scores(ax: Axes) -> None:
    """The score of item j: four parts, and nothing else."""
    parts = [
        (13.5, 20, LONG, "$(g \\odot l_t) \\cdot E_j$", "long-term"),
        (35.5, 20, SHORT, "$((1-g) \\odot s_t) \\cdot E_j$", "short-term"),
        (57.5, 13, POPULARITY, "$p_j$", "popularity"),
        (72.5, 20, REPEAT, "$r(t, j)$", "repeat"),
    ]
    text(ax, 4, 10.6, "score", INK, size=11, ha="left", weight="bold")
    text(ax, 4, 7.2, "of item $j$", QUIET, size=9, ha="left")
    for number, (x, width, colour, formula, name) in enumerate(parts):
        box(ax, x, 6.6, width, 6, colour, formula, size=10.5, fill=0.16)
        ax.text(x + width / 2, 3.4, name, color=colour, size=9, ha="center", va="baseline")
        if number:
            text(ax, x - 1, 9.6, "+", INK, size=11)
    arrow(ax, (38, 19.8), (25, 13), LONG)
    arrow(ax, (46, 19.8), (45.5, 13), SHORT)
    arrow(ax, (62, 19.8), (80, 13), REPEAT)
    text(ax, 75, 17.6, "with how long ago and\nhow often $j$ occurred", REPEAT, size=8.2, ha="left")


def box(
    ax: Axes, x: float, y: float, width: float, height: float, colour: str, label: str, size: float, fill: float = 0.12
) -> None:
    """A rounded box with a label in its middle; (x, y) is its lower left corner."""
    ax.add_patch(
        FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.9", fc=tint(colour, fill), ec=colour, lw=1.1)
    )
    text(ax, x + width / 2, y + height / 2, label, INK, size=size)


def text(
    ax: Axes, x: float, y: float, label: str, colour: str, size: float, ha: str = "center", weight: str = "normal"
) -> None:
    """A label centred on y."""
    ax.text(x, y, label, color=colour, size=size, ha=ha, va="center", weight=weight, linespacing=1.35, zorder=4)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    """A straight arrow."""
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=colour, lw=1.1, shrinkA=0, shrinkB=0)
    )


def bracket(ax: Axes, left: float, right: float, y: float, colour: str, label: str, below: bool = False) -> None:
    """A span with ticks at its ends and a label at its middle."""
    tick = 0.9 if below else -0.9
    ax.plot([left, left, right, right], [y + tick, y, y, y + tick], color=colour, lw=1.2)
    middle = (left + right) / 2
    ax.add_patch(
        Rectangle((middle - 0.62 * len(label), y - 1.2), 1.24 * len(label), 2.4, fc="white", ec="none", zorder=3)
    )
    text(ax, middle, y, label, colour, size=9)


def tint(colour: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return tuple(1 - strength * (1 - part) for part in (red, green, blue))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
