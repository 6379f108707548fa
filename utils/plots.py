"""Every figure of the notebooks, drawn with pyplot: in a notebook it shows by itself, elsewhere call plt.show() or
plt.savefig().
"""

from collections.abc import Sequence

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Audio
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import mel
from .config import MelConfig

if hasattr(get_ipython(), "kernel"):  # in a notebook figures show there, whatever MPLBACKEND says
    get_ipython().run_line_magic("matplotlib", "inline")
plt.rcParams.update({
    "figure.dpi": 80, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10, "axes.titlelocation": "left", "font.size": 9,
})  # fmt: skip


def words(label: str) -> str:
    """'Waves_and_surf,Run' as 'Waves and surf, Run'."""
    return label.replace("_", " ").replace(",", ", ")


def waveform(ax: Axes, samples: np.ndarray, settings: MelConfig, title: str) -> None:
    """Amplitude over time (paper, figure 1)."""
    ax.plot(np.arange(len(samples)) / settings.sample_rate, samples, linewidth=0.4)
    ax.set(title=title, xlabel="s", ylabel="amplitude")
    ax.margins(x=0)


def spectrogram(ax: Axes, log_mel: np.ndarray, settings: MelConfig, title: str) -> None:
    """A log-mel spectrogram (paper, figure 2), with Hz at the bands' centres along the mel axis."""
    seconds = log_mel.shape[1] * settings.hop_length / settings.sample_rate
    extent = (0, seconds, 0, settings.n_mels)
    image = ax.imshow(log_mel, origin="lower", aspect="auto", cmap="magma", extent=extent, interpolation="nearest")
    low, high = hz_to_mel(np.array([settings.fmin, settings.fmax]))
    marks = np.array([100, 500, 2000, 10_000])
    ax.set_yticks((hz_to_mel(marks) - low) / (high - low) * (settings.n_mels + 1) - 0.5, marks)
    ax.set(title=title, xlabel="s", ylabel="Hz")
    ax.figure.colorbar(image, ax=ax, label="dB", pad=0.01)


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """m = 2595 log10(1 + f / 700) (paper, section III)."""
    return 2595 * np.log10(1 + hz / 700)


def waveforms(stages: dict[str, np.ndarray], settings: MelConfig) -> None:
    """Several versions of one clip, side by side."""
    _, axes = plt.subplots(1, len(stages), figsize=(10, 2), sharex=True, sharey=True, squeeze=False)
    for ax, (title, samples) in zip(axes[0], stages.items()):
        waveform(ax, samples, settings, f"{title}: {len(samples) / settings.sample_rate:.2f} s")


def player(samples: np.ndarray, settings: MelConfig, seconds: float = 2.0) -> Audio:
    """A player of the clip's first `seconds`, as loud as recorded, at 22 kHz so that the notebook stays small."""
    rate = 22_050
    samples = librosa.resample(
        samples[: int(seconds * settings.sample_rate)], orig_sr=settings.sample_rate, target_sr=rate
    )
    return Audio(samples.clip(-1, 1), rate=rate, normalize=False)


def clip(samples: np.ndarray, log_mel: np.ndarray, settings: MelConfig, title: str) -> None:
    """Waveform and mel spectrogram side by side."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.4))
    waveform(left, samples, settings, words(title))
    spectrogram(right, log_mel, settings, "log-mel spectrogram")


def clips_per_class(counts: pd.DataFrame) -> None:
    """Horizontal bars: one group a class (the index), one colour a set (the columns)."""
    counts = counts.rename(index=words).iloc[::-1]
    _, ax = plt.subplots(figsize=(8, 0.9 + 0.22 * len(counts)))
    counts.plot.barh(ax=ax, width=0.8)
    ax.set(xlabel="labels", ylabel="")


def durations(seconds: dict[str, np.ndarray]) -> None:
    """One histogram a set, over the same seconds."""
    _, axes = plt.subplots(1, len(seconds), figsize=(10, 2.4), sharex=True, squeeze=False)
    bins = np.linspace(0, max(values.max() for values in seconds.values()), 41)
    for ax, (name, values) in zip(axes[0], seconds.items()):
        ax.hist(values, bins=bins)
        ax.axvline(2, color="black", linewidth=1, linestyle=":")
        ax.set(title=f"{name}: median {np.median(values):.1f} s", xlabel="s", ylabel="clips")


def label_cooccurrence(counts: pd.DataFrame) -> None:
    """How often two labels (index and columns) stand on one clip."""
    figure, ax = plt.subplots(figsize=(2.5 + 0.22 * len(counts), 1.8 + 0.22 * len(counts)))
    image = ax.imshow(counts, cmap="Blues")
    names = [words(name) for name in counts.index]
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="clips", shrink=0.6)


def mel_scale(settings: MelConfig, filters: np.ndarray) -> None:
    """The paper's formula as a curve, and every eighth filter of the bank (n_mels, bins) at its place."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6))
    hz = np.linspace(0, settings.fmax, 500)
    left.plot(hz, hz_to_mel(hz))
    left.set(title="m = 2595 log10(1 + f / 700)", xlabel="f, Hz", ylabel="m, mel")
    right.plot(
        np.linspace(0, settings.sample_rate / 2, filters.shape[1]),
        (filters / filters.max(axis=1, keepdims=True))[::8].T,
    )
    right.set(title="every eighth of the filters, scaled to one height", xlabel="f, Hz", ylabel="weight")


def batch(x: np.ndarray, targets: np.ndarray, classes: list[str]) -> None:
    """The spectrograms (clips, 1, n_mels, frames) of a batch as the model sees them, with their labels."""
    _, axes = plt.subplots(1, len(x), figsize=(10, 2.4))
    for ax, crop, labels in zip(axes, x[:, 0], targets):
        ax.imshow(crop, origin="lower", aspect="auto", cmap="magma")
        ax.set_title("\n".join(words(classes[i]) for i in np.flatnonzero(labels)), fontsize=7)
        ax.set_axis_off()


def learning_curves(histories: dict[str, pd.DataFrame]) -> None:
    """Loss, on the training and the validation set, LWLRAP and top-5 over the epochs, one colour a run."""
    _, axes = plt.subplots(1, 3, figsize=(10, 2.6))
    for color, (title, history) in zip(plt.rcParams["axes.prop_cycle"].by_key()["color"], histories.items()):
        axes[0].plot(history["epoch"], history["loss"], color=color, linestyle=":")
        evaluated = history.dropna()
        for ax, column in zip(axes, ["validation loss", "LWLRAP", "top-5"]):
            marker = "." if len(evaluated) < 10 else ""
            ax.plot(evaluated["epoch"], evaluated[column], color=color, label=title, marker=marker)
            ax.set(title=column if ax is axes[0] else f"validation {column}, one crop a clip", xlabel="epoch")
    axes[0].set(title="loss: validation, and training (dotted)", yscale="log")
    axes[0].legend(frameon=False)


def spectrograms(stages: dict[str, np.ndarray], settings: MelConfig) -> None:
    """Several versions of one log-mel spectrogram, (n_mels, frames) each, side by side."""
    _, axes = plt.subplots(1, len(stages), figsize=(10, 2.4), sharey=True)
    for ax, (title, log_mel) in zip(axes, stages.items()):
        seconds = log_mel.shape[1] * settings.hop_length / settings.sample_rate
        ax.imshow(log_mel, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, settings.n_mels))
        ax.set(title=title, xlabel="Time (s)")
    axes[0].set(ylabel="mel band")


def intervals(table: pd.DataFrame) -> None:
    """LWLRAP of each row with its interval, the columns `LWLRAP`, `low` and `high`, first row on top."""
    _, ax = plt.subplots(figsize=(7, 0.8 + 0.3 * len(table)))
    table = table.iloc[::-1]
    reach = [table["LWLRAP"] - table["low"], table["high"] - table["LWLRAP"]]
    ax.errorbar(table["LWLRAP"], range(len(table)), xerr=reach, fmt="o", capsize=3)
    ax.set_yticks(range(len(table)), table.index)
    ax.set(xlabel="LWLRAP, with its 95% interval")
    ax.grid(axis="x", alpha=0.3)


def score_over_cost(table: pd.DataFrame) -> None:
    """LWLRAP over seconds of training and over MMAC, a dot a run; columns as of `Run.summary` and `Run.cost`."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    for ax, (column, label) in zip(axes, {"seconds": "seconds of training", "MMAC": "MMAC a crop"}.items()):
        for marker, (_, run) in zip("os^vD*PX<>" * len(table), table.iterrows()):
            ax.plot(run[column], run["LWLRAP"], marker, label=run["model"])
        ax.set(xlabel=label, xscale="log")
        ax.tick_params(axis="x", which="minor", labelbottom=False)
        ax.grid(alpha=0.3)
    axes[0].set(ylabel="LWLRAP")
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def per_class(table: pd.DataFrame, column: str) -> None:
    """One dot a class (the index) and a run (the columns), sorted by the first run."""
    table = table.rename(index=words).sort_values(table.columns[0])
    _, ax = plt.subplots(figsize=(8, 0.9 + 0.22 * len(table)))
    for run in table:
        ax.plot(table[run], range(len(table)), "o", label=run)
    ax.set_yticks(range(len(table)), table.index)
    ax.set(xlabel=column, xlim=(-0.02, 1.02))
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(3, len(table.columns)))


def scores(names: Sequence[str], values: np.ndarray, title: str) -> None:
    """The highest five of one clip's scores, as bars."""
    top = np.argsort(values)[-5:]
    _, ax = plt.subplots(figsize=(5, 1.8))
    ax.barh([words(names[i]) for i in top], values[top])
    ax.set(title=words(title), xlabel="score", xlim=(0, 1))


def tags_over_time(samples: np.ndarray, scores: pd.DataFrame, settings: MelConfig, top: int = 5) -> Figure:
    """A recording's spectrogram, and beneath it, over the same seconds, the scores of the `top` classes with the
    highest peaks.

    `samples`: mono, untrimmed; `scores`: a row a window, with its middle in seconds as index, and a column a class.
    """
    duration = len(samples) / settings.sample_rate
    highest = scores[scores.max().nlargest(top).index[::-1]]
    middles = scores.index.to_numpy()
    edges = np.concatenate([[0], (middles[:-1] + middles[1:]) / 2, [duration]])
    rows = len(highest.columns)
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(10, 2.9 + 0.22 * rows), sharex=True, height_ratios=[2.2, 0.22 * rows]
    )
    spectrogram(upper, mel.log_mel(samples, settings), settings, "log-mel spectrogram")
    upper.set(xlabel="", xlim=(0, duration))
    image = lower.pcolormesh(edges, np.arange(rows + 1), highest.T, cmap="Blues", vmin=0, vmax=1)
    lower.set_yticks(np.arange(rows) + 0.5, [words(name) for name in highest])
    lower.tick_params(axis="y", length=0)
    lower.set(title="scores", xlabel="s")
    figure.colorbar(image, ax=lower, label="score", pad=0.01)
    return figure


def relevance(log_mel: np.ndarray, points: dict[str, np.ndarray], settings: MelConfig) -> Figure:
    """A spectrogram and, a row a title, the relevances (n_mels, frames) of its points: by themselves, and over it in
    grey. Red speaks for the label, blue against it.
    """
    figure, axes = plt.subplots(len(points), 3, figsize=(10, 0.3 + 2.3 * len(points)), squeeze=False, sharey=True)
    extent = (0, log_mel.shape[1] * settings.hop_length / settings.sample_rate, 0, settings.n_mels)
    options = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest"}
    for (left, middle, right), (title, values) in zip(axes, points.items()):
        limit = np.quantile(np.abs(values), 0.99) or 1.0
        strength = (values / limit).clip(-1, 1)
        left.imshow(log_mel, cmap="magma", **options)
        image = middle.imshow(strength, cmap="seismic", vmin=-1, vmax=1, **options)
        right.imshow(log_mel, cmap="gray", **options)
        right.imshow(strength, cmap="bwr", vmin=-1, vmax=1, alpha=np.abs(strength) ** 0.5, **options)
        left.set(title="log-mel spectrogram", ylabel="mel band")
        middle.set(title=title)
        right.set(title="over each other")
        figure.colorbar(image, ax=right, label="relevance, scaled", pad=0.01)
    for ax in axes[-1]:
        ax.set(xlabel="s")
    return figure


def deletion(curves: dict[str, pd.DataFrame]) -> None:
    """Of each title, the mean score over the share of the points that are gone (the index), a line an order."""
    _, axes = plt.subplots(1, len(curves), figsize=(10, 2.8), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], curves.items()):
        table.plot(ax=ax, marker="o", legend=False)
        ax.set(title=title, xlabel="share of the points gone", ylabel="mean score of the labels", xticks=table.index)
        ax.grid(alpha=0.3)
    axes[0, -1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def relevance_per_class(table: pd.DataFrame, settings: MelConfig) -> None:
    """A row a class (the index) over the mel bands (the columns), smoothed over four and scaled by its maximum."""
    smooth = table.T.rolling(4, center=True, min_periods=1).mean().T  # a first layer of stride 2 favours every other
    scaled = smooth.div(smooth.abs().max(axis=1).replace(0, 1), axis=0)
    figure, ax = plt.subplots(figsize=(10, 1 + 0.22 * len(table)))
    image = ax.imshow(scaled, aspect="auto", cmap="seismic", vmin=-1, vmax=1, interpolation="nearest")
    low, high = hz_to_mel(np.array([settings.fmin, settings.fmax]))
    marks = np.array([100, 500, 1000, 2000, 5000, 10_000, 20_000])
    ax.set_xticks((hz_to_mel(marks) - low) / (high - low) * (settings.n_mels + 1) - 1, marks)
    ax.set_yticks(range(len(table)), [words(name) for name in table.index])
    ax.set(xlabel="Hz")
    figure.colorbar(image, ax=ax, label="relevance, scaled", pad=0.01)
