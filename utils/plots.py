"""Plots of waveforms, spectrograms and relevance. Outside a notebook, follow them by plt.show() or plt.savefig().

Importing this module sets the style of all of matplotlib's figures.
"""

import io
import textwrap
import warnings
from collections.abc import Collection, Sequence

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import soundfile
from IPython import get_ipython
from IPython.display import Audio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from . import mel
from .config import MelConfig

IN_NOTEBOOK = hasattr(get_ipython(), "kernel")
if IN_NOTEBOOK:  # show figures there, whatever MPLBACKEND says
    get_ipython().run_line_magic("matplotlib", "inline")
plt.style.use("tableau-colorblind10")
plt.rcParams.update({
    "figure.dpi": 110, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10, "axes.titlelocation": "left", "font.size": 9, "legend.frameon": False,
    "text.parse_math": False,  # a file name may have dollar signs
})  # fmt: skip
warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # boxes show where it has no letters
LEVEL = "Level (dB re max)"
HZ = np.array([100, 500, 2000, 10_000])  # ticks on a mel axis


def display_name(label: str) -> str:
    """Turn 'Waves_and_surf,Run' into 'Waves and surf, Run'."""
    return ", ".join(part.strip() for part in label.replace("_", " ").split(","))


def waveform(ax: Axes, samples: np.ndarray, settings: MelConfig, title: str) -> None:
    """Draw amplitude over time (paper, figure 1)."""
    ax.plot(np.arange(len(samples)) / settings.sample_rate, samples, linewidth=0.4)
    ax.set(title=title, xlabel="Time (s)", ylabel="Amplitude")
    ax.margins(x=0)


def spectrogram(ax: Axes, log_mel: np.ndarray, settings: MelConfig, title: str) -> None:
    """Draw a log-mel spectrogram (paper, figure 2) in dB relative to its maximum, with Hz along the mel axis."""
    ax.figure.colorbar(_image(ax, log_mel, settings), ax=ax, label=LEVEL, pad=0.01)
    ax.set(title=title, xlabel="Time (s)", ylabel="Frequency (Hz)")


def _image(ax: Axes, log_mel: np.ndarray, settings: MelConfig) -> AxesImage:
    loudest, limits = log_mel.max(), {"vmin": -settings.top_db, "vmax": 0}
    loudest += settings.top_db * (loudest == log_mel.min())  # silence is black
    relative = log_mel - loudest
    return ax.imshow(relative, cmap="magma", **limits, **_mel_axes(ax, log_mel.shape[1], settings))


def _mel_axes(ax: Axes, n_frames: int, settings: MelConfig, begin: float = 0.0) -> dict:
    """Label the mel axis in Hz; return options for `ax.imshow` to draw over it, and over seconds from `begin` on."""
    ax.set_yticks(mel_band(HZ, settings) + 0.5, HZ)
    seconds = n_frames * settings.hop_length / settings.sample_rate
    return {"origin": "lower", "aspect": "auto", "extent": (begin, begin + seconds, 0, settings.n_mels)}


def mel_band(hz: np.ndarray, settings: MelConfig) -> np.ndarray:
    """Return the mel band, from 0, centered at each frequency; a fraction between two bands."""
    low, high = librosa.hz_to_mel([settings.fmin, settings.fmax], htk=True)
    return (librosa.hz_to_mel(hz, htk=True) - low) / (high - low) * (settings.n_mels + 1) - 1


def waveforms(stages: dict[str, np.ndarray], settings: MelConfig) -> None:
    """Draw several versions of one clip side by side."""
    _, axes = plt.subplots(1, len(stages), figsize=(10, 2), sharex=True, sharey=True, squeeze=False)
    for ax, (title, samples) in zip(axes[0], stages.items()):
        waveform(ax, samples, settings, f"{title}: {len(samples) / settings.sample_rate:.2f} s")
        ax.label_outer()


def trimming(samples: np.ndarray, settings: MelConfig, kept: Sequence[int]) -> None:
    """Draw the level over time with the threshold of trimming, shading what lies outside the samples `kept`."""
    level = librosa.amplitude_to_db(librosa.feature.rms(y=samples)[0], ref=np.max, top_db=1.3 * settings.trim_db)
    _, ax = plt.subplots(figsize=(10, 2))
    ax.plot(librosa.times_like(level, sr=settings.sample_rate), level, marker="" if len(level) > 1 else "o")
    ax.axhline(-settings.trim_db, color="black", linewidth=1, linestyle=":")
    for span in ((0, kept[0]), (kept[1], len(samples))):
        ax.axvspan(*np.array(span) / settings.sample_rate, color="C1", alpha=0.3, linewidth=0)
    ax.set(xlabel="Time (s)", ylabel=LEVEL)
    ax.margins(x=0)


def player(samples: np.ndarray, settings: MelConfig, seconds: float = 2.0) -> Audio:
    """Return a player of the clip's first `seconds`, as loud as recorded, in MP3 to keep the notebook small.

    In a notebook, the figures drawn in its cell are shown first.
    """
    if IN_NOTEBOOK:
        plt.show()
    sound = io.BytesIO()
    samples = samples[: int(seconds * settings.sample_rate)].clip(-1, 1)
    soundfile.write(sound, samples, settings.sample_rate, format="MP3")
    audio = Audio(sound.getvalue())
    audio.mimetype = "audio/mpeg"
    return audio


def clip(samples: np.ndarray, settings: MelConfig, title: str) -> None:
    """Draw the waveform and, below it, the log-mel spectrogram over the same seconds."""
    _, (upper, lower) = plt.subplots(2, 1, figsize=(6.2, 3), sharex=True, height_ratios=[1, 2])
    waveform(upper, samples, settings, title)
    spectrogram(lower, mel.log_mel(samples, settings), settings, "")
    upper.set(xlabel="", xlim=(0, len(samples) / settings.sample_rate))


def tagged_clip(
    samples: np.ndarray, scores: pd.Series, settings: MelConfig, title: str, labels: Sequence[str] = ()
) -> None:
    """Draw the clip's spectrogram and its five highest scores (the index: classes), those of its `labels` in orange."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.4), width_ratios=[1.6, 1])
    spectrogram(left, mel.log_mel(samples, settings), settings, title)
    top = scores.nlargest(5)[::-1]
    colors = ["C1" if name in labels else "C0" for name in top.index]
    bars = right.barh([display_name(name) for name in top.index], top, color=colors)
    right.bar_label(bars, fmt="%.2f", padding=3)
    right.set(title="five highest scores" + " (orange: its labels)" * bool(labels), xlabel="Score", xlim=(0, 1.12))
    right.set_xticks(np.linspace(0, 1, 6))


def mel_scale(settings: MelConfig) -> None:
    """Draw the paper's formula as a curve, and every eighth filter of the bank."""
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6))
    hz = np.linspace(0, settings.fmax, 500)
    left.plot(hz, librosa.hz_to_mel(hz, htk=True))
    left.set(title="m = 2595 log10(1 + f / 700)", xlabel="Frequency (Hz)", ylabel="Mel")
    hz = librosa.fft_frequencies(sr=settings.sample_rate, n_fft=settings.n_fft)
    for weights in mel.mel_filters(settings)[::8]:
        there = np.flatnonzero(weights)
        there = slice(max(there[0] - 1, 0), there[-1] + 2)  # with the zeros at its sides
        right.plot(hz[there], weights[there], color="C0", linewidth=1)
    right.set(title="every eighth filter", xlabel="Frequency (Hz)", ylabel="Weight (1/Hz)")


def spectrograms(stages: dict[str, np.ndarray], settings: MelConfig) -> None:
    """Draw several log-mel spectrograms, (n_mels, frames) each, at most six in a row."""
    _grid(stages, stages.values(), settings)


def batch(x: np.ndarray, targets: np.ndarray, classes: list[str], settings: MelConfig) -> None:
    """Draw the spectrograms (clips, 1, n_mels, frames) of a batch as the model sees them, with their labels."""
    titles = ["\n".join(display_name(classes[i]) for i in np.flatnonzero(labels)) for labels in targets]
    _grid(titles, x[:, 0], settings)


def _wrapped(title: str, width: int) -> str:
    """Break each line of `title` after at most `width` letters."""
    return "\n".join(textwrap.fill(line, width) for line in title.split("\n"))


def _grid(titles: Collection[str], images: Collection[np.ndarray], settings: MelConfig) -> None:
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(10, 0.8 + (1.4 if rows > 1 else 1.7) * rows), sharex=True, sharey=True, squeeze=False
    )
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    for ax, title, log_mel in zip(axes.flat, titles, images):
        image = _image(ax, log_mel, settings)
        ax.set_title(_wrapped(title, 132 // columns), fontsize=8)
    figure.supxlabel("Time (s)", fontsize=9)
    figure.supylabel("Frequency (Hz)", fontsize=9)
    figure.colorbar(image, ax=axes, label=LEVEL, pad=0.01, aspect=20 * rows)


def feature_maps(maps: np.ndarray, n_frames: int, settings: MelConfig, most: int = 8) -> None:
    """Draw the channels with the highest values of a layer's output for a spectrogram of `n_frames` frames.

    `maps`: (channels, height, width). Each channel has its own gray scale, white at its highest value.
    """
    strongest = np.argsort(-maps.max(axis=(1, 2)), kind="stable")[:most]
    figure, axes = plt.subplots(1, len(strongest), figsize=(10, 2.1), sharex=True, sharey=True, squeeze=False)
    for ax, channel in zip(axes[0], strongest):
        ax.imshow(maps[channel], cmap="gray", **_mel_axes(ax, n_frames, settings))
        ax.set_title(f"channel {channel}", fontsize=9)
    figure.supxlabel("Time (s)", fontsize=9)
    figure.supylabel("Frequency (Hz)", fontsize=9)


def deltas(log_mel: np.ndarray, slope: np.ndarray, n_frames: int, settings: MelConfig) -> None:
    """Draw a standardized log-mel spectrogram and its deltas: red is rising, blue is falling.

    Both have the same shape, an average of `n_frames` frames and the mel bands of `settings`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.4), sharey=True)
    options, largest = _mel_axes(left, n_frames, settings), np.abs(slope).max()
    figure.colorbar(left.imshow(log_mel, cmap="magma", **options), ax=left, label="Standard deviations")
    slopes = right.imshow(slope, cmap="RdBu_r", vmin=-largest, vmax=largest, **options)
    figure.colorbar(slopes, ax=right, label="Standard deviations")
    left.set(title="log-mel", xlabel="Time (s)", ylabel="Frequency (Hz)")
    right.set(title="deltas", xlabel="Time (s)")


def tags_over_time(samples: np.ndarray, scores: pd.DataFrame, settings: MelConfig) -> Figure:
    """Draw a recording's spectrogram and, below it, the scores over time of the five classes with the highest peaks.

    Classes are ordered by the time of their peak. `samples`: mono, untrimmed; `scores`: a row per window, with its
    middle in seconds as index, and a column per class.
    """
    duration = len(samples) / settings.sample_rate
    highest = scores[scores.max().nlargest(5).index]
    highest = highest[highest.idxmax().sort_values(ascending=False, kind="stable").index]
    middles = scores.index.to_numpy()
    edges = np.concatenate([[0], (middles[:-1] + middles[1:]) / 2, [duration]])
    rows = len(highest.columns)
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(10, 2.9 + 0.22 * rows), sharex=True, height_ratios=[2.2, 0.22 * rows]
    )
    spectrogram(upper, mel.log_mel(samples, settings), settings, "log-mel spectrogram")
    upper.set(xlabel="", xlim=(0, duration))
    image = lower.pcolormesh(edges, np.arange(rows + 1), highest.T, cmap="Blues", vmin=0, vmax=1)
    lower.hlines(np.arange(1, rows), 0, duration, color="white", linewidth=3)
    lower.set_yticks(np.arange(rows) + 0.5, [display_name(name) for name in highest])
    lower.tick_params(axis="y", length=0)
    lower.set(title="scores", xlabel="Time (s)")
    figure.colorbar(image, ax=lower, label="Score", pad=0.01, aspect=4 * rows)
    return figure


def relevance(log_mel: np.ndarray, points: dict[str, np.ndarray], settings: MelConfig, begin: float = 0.0) -> Figure:
    """Draw a spectrogram, which starts at second `begin`, and beside it relevances of its points, (n_mels, frames).

    A panel per title, each scaled by its strongest points. Red supports the label, blue contradicts it.
    """
    figure, axes = plt.subplots(1, 1 + len(points), figsize=(10, 2.6), sharex=True, sharey=True)
    options = _mel_axes(axes[0], log_mel.shape[1], settings, begin) | {"interpolation": "nearest"}
    axes[0].imshow(log_mel, cmap="magma", **options)
    axes[0].set_title("log-mel spectrogram", fontsize=8)
    axes[0].set(ylabel="Frequency (Hz)")
    for ax, (title, values) in zip(axes[1:], points.items()):
        limit = np.quantile(np.abs(values), 0.99) or 1.0
        image = ax.imshow((values / limit).clip(-1, 1), cmap="RdBu_r", vmin=-1, vmax=1, **options)
        ax.set_title(_wrapped(title, 24), fontsize=8)
    for ax in axes:
        ax.set(xlabel="Time (s)")
    figure.colorbar(image, ax=axes, label="Relevance, scaled", pad=0.01)
    return figure


def relevance_per_class(table: pd.DataFrame, settings: MelConfig) -> None:
    """Draw a row per class (the index) over mel bands (the columns), smoothed over four and scaled by its maximum."""
    smooth = table.T.rolling(4, center=True, min_periods=1).mean().T  # a first layer of stride 2 favors every other
    scaled = smooth.div(smooth.abs().max(axis=1).replace(0, 1), axis=0)
    figure, ax = plt.subplots(figsize=(10, 1 + 0.22 * len(table)))
    image = ax.imshow(scaled, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    marks = np.array([100, 500, 1000, 2000, 5000, 10_000, 20_000])
    ax.set_xticks(mel_band(marks, settings), marks)
    ax.set_yticks(range(len(table)), [display_name(name) for name in table.index])
    ax.set(xlabel="Frequency (Hz)")
    figure.colorbar(image, ax=ax, label="Relevance, scaled", pad=0.01, aspect=6 * figure.get_figheight())
