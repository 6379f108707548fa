"""Charts of labels, durations, networks, training and scores, in the style of `plots`."""

import textwrap
from collections.abc import Sequence
from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from .metrics import best_threshold
from .plots import display_name


def _plain_numbers(axis: Axis) -> None:
    """Label the major ticks of a logarithmic axis without powers of ten, which need matplotlib's formulas."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def clips_per_class(counts: pd.DataFrame) -> None:
    """Draw a panel of horizontal bars per set with clips (the columns), classes (the index) sorted by the first set."""
    counts = counts.loc[:, counts.any()].rename(index=display_name)
    counts = counts.sort_values(list(counts))
    _, axes = plt.subplots(1, len(counts.columns), figsize=(8, 0.9 + 0.2 * len(counts)), sharey=True, squeeze=False)
    for number, (ax, name) in enumerate(zip(axes[0], counts)):
        ax.barh(counts.index, counts[name], color=f"C{number}")
        ax.set(title=name, xlabel="Clips")
        ax.locator_params("x", integer=True)
        ax.margins(y=0.01)


def bars(values: pd.Series, xlabel: str) -> None:
    """Draw horizontal bars, the first on top."""
    longest = max(map(len, values.index), default=0)
    _, ax = plt.subplots(figsize=(max(7, 3 + 0.075 * longest), 0.7 + 0.22 * len(values)))
    ax.barh([display_name(name) for name in values.index[::-1]], values[::-1])
    ax.locator_params("x", integer=True)
    ax.set(xlabel=xlabel)


def strip(values: pd.Series, of: pd.Series, xlabel: str) -> None:
    """Draw a line per clip at its value and a dot at the median, a row per class; `of`: the class of each clip."""
    medians = values.groupby(of).median().sort_values(ascending=False)
    rows = pd.Series(range(len(medians)), medians.index)
    _, ax = plt.subplots(figsize=(8, 0.9 + 0.22 * len(medians)))
    ax.plot(values, of.map(rows), "|", markersize=9, alpha=0.7)
    ax.plot(medians, rows, "o", markersize=4, color="C1")
    ax.set_yticks(rows, [display_name(name) for name in medians.index])
    ax.set(xlabel=xlabel, ylim=(-0.6, len(medians) - 0.4))


def durations(seconds: dict[str, np.ndarray]) -> None:
    """Draw one histogram per set over the same time axis, leaving out sets without known durations."""
    seconds = {name: values for name, values in seconds.items() if len(values)}
    if not seconds:
        return
    figure, axes = plt.subplots(1, len(seconds), figsize=(10, 2.6), sharex=True, squeeze=False)
    bins = np.linspace(0, max(2, *(values.max() for values in seconds.values())), 21)
    for ax, (name, values) in zip(axes[0], seconds.items()):
        ax.hist(values, bins=bins)
        line = ax.axvline(2, color="black", linewidth=1, linestyle=":")
        ax.set(title=f"{name}: median {np.median(values):.1f} s", xlabel="Duration (s)", ylabel="Clips")
        ax.locator_params("y", integer=True)
    figure.legend([line], ["2 s, what a model is shown at once"], loc="outside lower center")


def per_class(table: pd.DataFrame, xlabel: str) -> None:
    """Draw a marker per class (the index) and run (up to three columns), classes with the highest mean on top."""
    table = table.sort_index(ascending=False)
    table = table.loc[table.mean(axis="columns").sort_values(kind="stable").index].rename(index=display_name)
    _, ax = plt.subplots(figsize=(8, 0.9 + 0.3 * len(table)))
    heights = np.arange(len(table)) + 0.15 * (table.shape[1] - 1)
    for number, (marker, run) in enumerate(zip("os^", table)):  # one above the other, since many coincide
        ax.plot(table[run], heights - 0.3 * number, marker, markersize=5, label=run)
    ax.set_yticks(range(len(table)), table.index)
    left = max(-0.02, table.min().min() - 0.05)
    ax.set(xlabel=xlabel, xlim=(left, 1.02), ylim=(-0.5, len(table) - 0.5))
    for row in range(0, len(table), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.05, linewidth=0)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(3, len(table.columns)))


def f1_over_threshold(curves: pd.DataFrame) -> None:
    """Draw macro F1 over the threshold (the index), a curve per run (the columns), a dot at its maximum."""
    _, ax = plt.subplots(figsize=(7, 2.6))
    for style, run in zip(cycle(["-", "--", ":"]), curves):
        (line,) = ax.plot(curves[run], style, label=run)
        ax.plot(best_threshold(curves[run]), curves[run].max(), "o", color=line.get_color())
    ax.set(xlabel="Threshold", ylabel="Macro F1", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def ap_over_clips(table: pd.DataFrame) -> None:
    """Draw AP over curated clips per class (the index), a larger dot for several within 0.01; name the five lowest."""
    _, ax = plt.subplots(figsize=(7, 3))
    named = table[table["AP"] < 1].nsmallest(5, "AP").index
    table = table.assign(AP=table["AP"].round(2))  # close dots and their names would overlap
    dots = table.groupby(["curated clips", "AP"]).size().reset_index(name="classes")
    ax.scatter(dots["curated clips"], dots["AP"], 30 * dots["classes"])
    for at, some in table.loc[named].groupby(["curated clips", "AP"]):
        names = textwrap.fill(", ".join(map(display_name, some.index)), 40)
        ax.annotate(names, at, (8, 0), textcoords="offset points", va="center", fontsize=7)
    lowest = table["AP"].min()
    ax.set(xlabel="Curated clips of the class", ylabel="Average precision", ylim=(lowest - 0.05, 1.02))
    ax.set_yticks([tick for tick in ax.get_yticks() if lowest - 0.05 <= tick <= 1])  # an AP is at most 1
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    ax.grid(alpha=0.3)


def architecture(shapes: dict[str, Sequence[int]]) -> None:
    """Draw a network's feature maps in order: (channels, bands, frames) or (features,) each, by stage."""
    _, ax = plt.subplots(figsize=(10, 2.4))
    left = 0.0
    for name, shape in shapes.items():
        width, height = (np.sqrt(shape[2]), np.sqrt(shape[1])) if len(shape) == 3 else (0.5, np.log2(shape[0]))
        sheets = 1 + int(np.log2(shape[0])) if len(shape) == 3 else 1
        for sheet in 0.3 * np.arange(sheets)[::-1]:
            box = {"facecolor": "C0", "edgecolor": "white", "linewidth": 0.6}
            ax.add_patch(Rectangle((left + sheet, sheet), width, height, **box))
        middle = left + (width + 0.3 * (sheets - 1)) / 2
        ax.text(middle, -0.6, f"{name}\n{' x '.join(map(str, shape))}", ha="center", va="top", fontsize=8)
        left = max(left + width + 0.3 * sheets, middle + 2) + 1.6
    ax.set(xlim=(-1, left), ylim=(-3.5, 12.5), aspect="equal")
    ax.set_axis_off()


def singular_values(values: dict[str, np.ndarray]) -> None:
    """Draw the singular values of each matrix, largest first, on a logarithmic axis."""
    _, ax = plt.subplots(figsize=(7, 2.6))
    for name, some in values.items():
        ax.semilogy(some, label=name)
    ax.set(xlabel="Index, largest first", ylabel="Singular value (log scale)")
    _plain_numbers(ax.yaxis)
    ax.grid(alpha=0.3)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def score_histogram(scores: np.ndarray) -> None:
    """Draw histograms of all scores (clips, classes) and of each clip's highest."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.2), sharex=True)
    left.hist(scores.ravel(), bins=np.linspace(0, 1, 21), log=True)
    left.set(title="all scores", xlabel="Score", ylabel="Number of scores (log scale)")
    left.set_ylim(bottom=0.8)  # so that 1 is labeled
    _plain_numbers(left.yaxis)
    right.hist(scores.max(axis=1), bins=np.linspace(0, 1, 21))
    right.set(title="highest of each clip", xlabel="Score", ylabel="Clips")


def intervals(table: pd.DataFrame, chance: float | None = None) -> None:
    """Draw LWLRAP and, if given, `gain` of each row with its interval, first row on top; a dotted line at `chance`.

    Columns as from `metrics.lwlrap_with_interval`.
    """
    table, panels = table.iloc[::-1], {"LWLRAP": ("low", "high"), "gain": ("gain low", "gain high")}
    panels = {name: ends for name, ends in panels.items() if name in table}
    size = (7 if len(panels) == 1 else 10, 0.8 + 0.3 * len(table))
    _, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (name, (low, high)) in zip(axes[0], panels.items()):
        reach = np.array([table[name] - table[low], table[high] - table[name]]).clip(0)  # rounding can be negative
        ax.errorbar(table[name], range(len(table)), xerr=reach, fmt="o", capsize=3)
        ax.set(xlabel=f"{name}, with its 95% interval", ylim=(-0.6, len(table) - 0.4))
        ax.grid(axis="x", alpha=0.3)
    ax.set_yticks(range(len(table)), table.index)
    if chance is not None:
        axes[0, 0].axvline(chance, color="black", linewidth=1, linestyle=":")
    if "gain" in panels:
        ax.set(xlabel="Gain over the row above, with its 95% interval")
        ax.axvline(0, color="black", linewidth=1, linestyle=":")


def learning_curves(histories: dict[str, pd.DataFrame]) -> None:
    """Draw training and validation loss, LWLRAP and top-5 over the epochs, one color per run.

    If a history has a column `stage`, a dotted line marks where the next one begins.
    """
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.6))
    for number, (title, history) in enumerate(histories.items()):
        color = f"C{number}"
        begins = history["epoch"][history["stage"].diff() > 0] if "stage" in history else []
        for ax, epoch in product(axes, begins):
            ax.axvline(epoch - 0.5, color="black", linewidth=0.8, linestyle=":", zorder=0)
        axes[0].plot(history["epoch"], history["loss"], color=color, linestyle=":")
        evaluated = history.dropna()
        for ax, column in zip(axes, ["validation loss", "LWLRAP", "top-5"]):
            marker = "." if len(evaluated) < 10 else ""
            ax.plot(evaluated["epoch"], evaluated[column], color=color, label=title, marker=marker)
            ax.set(title=f"validation {column}, one crop", xlabel="Epoch")
    axes[0].set(title="validation loss (dotted: training)", ylabel="Loss (log scale)", yscale="log")
    low, high = axes[0].get_ylim()
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 1000 * low else (1,)))
    _plain_numbers(axes[0].yaxis)
    for ax in axes:
        ax.locator_params("x", nbins=5, integer=True)
    if len(histories) > 1:
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    for ax, column in zip(axes[1:], ["LWLRAP", "top-5"]):  # the first epochs would flatten the rest
        curves = [history[column].dropna().to_numpy(float) for history in histories.values()]
        later = np.concatenate([curve[len(curve) // 10 :] for curve in curves])
        ax.set_ylim(later.min() - 0.02, min(later.max() + 0.02, 1.005))


def score_over_cost(table: pd.DataFrame) -> None:
    """Draw LWLRAP over training seconds and over MMAC, a dot per run; columns as in `Run.summary` and `Run.cost`."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    for ax, (column, label) in zip(axes, {"seconds": "Seconds of training", "MMAC": "MMAC per crop"}.items()):
        for marker, (_, run) in zip(cycle("os^vD*PX<>"), table.iterrows()):
            cost = max(run[column], 0.1)  # seconds may be rounded to 0, which has no logarithm
            ax.plot(cost, run["LWLRAP"], marker, label=run["run"])
        ax.set(xlabel=f"{label} (log scale)", xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        _plain_numbers(ax.xaxis)
        ax.grid(alpha=0.3)
    axes[0].set(ylabel="LWLRAP")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))


def deletion(curves: dict[str, pd.DataFrame]) -> None:
    """Draw, for each title, the mean score over the share of points deleted (the index), one line per ranking."""
    _, axes = plt.subplots(1, len(curves), figsize=(10, 2.8), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], curves.items()):
        table.plot(ax=ax, style=["o-", "s-", "^-", "k:"], legend=False)
        ax.set(title=title, xlabel="Share of the points deleted", ylabel="Mean score of the labels", xticks=table.index)
        ax.grid(alpha=0.3)
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
