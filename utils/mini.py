"""The mini set: synthetic demo data in the competition's Kaggle layout. The same seed gives the same bytes.

Each class is a short physical recipe whose pitch, pace, color and decay vary from clip to clip, over background noise;
some clips have a second sound or silent ends.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy  # imports scipy.signal on first use, which takes seconds
import soundfile
from numpy.random import Generator

from . import files
from .data import TEST_LABELS

RATE = 44_100  # Hz
SEED = 2019  # change it with the recipes: it is in the folder's name, so an older set is not mistaken for it
NAME = f"mini-{SEED}"
CLIPS = {"train_curated": 20, "train_noisy": 6, "test": 8}  # per class


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * RATE)) / RATE


def _noise(rng: Generator, n: int, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies in Hz, with standard deviation 1."""
    sos = scipy.signal.butter(2, [low, min(high, 0.49 * RATE)], btype="bandpass", fs=RATE, output="sos")
    noise = scipy.signal.sosfilt(sos, rng.standard_normal(n))
    return noise / noise.std()


def _partials(t: np.ndarray, pitch: float, ratios: list[float], decays: list[float], rng: Generator) -> np.ndarray:
    """Decaying sines at `ratios` of `pitch`, each with its decay time in seconds and a random strength."""
    strengths = rng.uniform(0.3, 1, len(ratios)) / np.arange(1, len(ratios) + 1)
    return sum(s * np.exp(-t / d) * np.sin(2 * np.pi * pitch * r * t) for r, d, s in zip(ratios, decays, strengths))


def _repeat(seconds: float, onsets: np.ndarray, sound: Callable[[], np.ndarray]) -> np.ndarray:
    """Place a new `sound()` at each of `onsets`, in seconds."""
    samples = np.zeros(int(seconds * RATE))
    for start in (onsets * RATE).astype(int):
        hit = sound()[: max(0, len(samples) - start)]
        samples[start : start + len(hit)] += hit
    return samples


def _onsets(rng: Generator, seconds: float, pace: float, jitter: float) -> np.ndarray:
    """Times from 0 to `seconds`, `pace` per second, each shifted by up to `jitter` of the step."""
    times = np.arange(rng.uniform(0, 0.1), seconds, 1 / pace)
    return np.clip(times + rng.uniform(-jitter, jitter, len(times)) / pace, 0, seconds)


def acoustic_guitar(rng: Generator, seconds: float) -> np.ndarray:
    """Plucked strings (Karplus and Strong): noise that circulates in a delay line, smoothed on each pass."""

    def pluck() -> np.ndarray:
        period = int(RATE / rng.uniform(82, 440))
        excitation = np.zeros(int(min(seconds, 2.5) * RATE))
        excitation[:period] = rng.uniform(-1, 1, period)
        loss = rng.uniform(0.985, 0.997)
        feedback = np.zeros(period + 2)
        feedback[[0, period, period + 1]] = 1, -loss / 2, -loss / 2
        return scipy.signal.lfilter([1.0], feedback, excitation)

    return _repeat(seconds, _onsets(rng, seconds, rng.uniform(0.8, 3), 0.2), pluck)


def bass_drum(rng: Generator, seconds: float) -> np.ndarray:
    """A drumhead whose pitch falls as it comes to rest, and the beater's click."""
    start, end, decay = rng.uniform(90, 220), rng.uniform(38, 70), rng.uniform(0.08, 0.35)

    def hit() -> np.ndarray:
        t = _time(0.8)
        phase = 2 * np.pi * np.cumsum(end + (start - end) * np.exp(-t / 0.03)) / RATE
        return np.exp(-t / decay) * np.sin(phase) + 0.2 * np.exp(-t / 0.004) * _noise(rng, len(t), 500, 5000)

    return _repeat(seconds, _onsets(rng, seconds, rng.uniform(0.7, 2.5), 0.1), hit)


def buzz(rng: Generator, seconds: float) -> np.ndarray:
    """An insect's wings: a sawtooth-like tone that wavers in pitch and strength."""
    t = _time(seconds)
    waver = 1 + 0.04 * np.sin(2 * np.pi * rng.uniform(0.5, 4) * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(rng.uniform(110, 320) * waver) / RATE
    tone = sum(np.sin(k * phase) / k ** rng.uniform(0.6, 1.3) for k in range(1, 18))
    return tone * (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.3, 6) * t))


def chirp_and_tweet(rng: Generator, seconds: float) -> np.ndarray:
    """A bird: short sweeps up or down, with an arch of loudness."""
    low, span, length = rng.uniform(1800, 4500), rng.uniform(-1500, 2500), rng.uniform(0.04, 0.18)

    def tweet() -> np.ndarray:
        t = _time(length * rng.uniform(0.8, 1.2))
        pitch = low + span * t / t[-1] + rng.uniform(0, 300) * np.sin(2 * np.pi * rng.uniform(15, 40) * t)
        return np.hanning(len(t)) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)

    return _repeat(seconds, _onsets(rng, seconds, rng.uniform(2, 7), 0.4), tweet)


def church_bell(rng: Generator, seconds: float) -> np.ndarray:
    """A cast bell: hum, prime, minor third, fifth and nominal, the low ones ringing longest."""
    pitch = rng.uniform(180, 700)
    ratios = np.array([0.5, 1, 1.2, 1.5, 2, 2.5, 2.67, 3, 4]) * rng.uniform(0.99, 1.01, 9)
    decays = rng.uniform(1, 3) / (1 + np.arange(9) / 2)
    onsets = _onsets(rng, seconds, rng.uniform(0.4, 1.2), 0.1)
    return _repeat(seconds, onsets, lambda: _partials(_time(seconds), pitch, ratios, decays, rng))


def clapping(rng: Generator, seconds: float) -> np.ndarray:
    """One pair of hands: short bursts of noise around 1 kHz, never quite the same."""
    middle = rng.uniform(800, 1800)

    def clap() -> np.ndarray:
        t = _time(0.12)
        color = middle * rng.uniform(0.85, 1.2)
        loudness = rng.uniform(0.6, 1) * np.exp(-t / rng.uniform(0.008, 0.02))
        return loudness * _noise(rng, len(t), 0.6 * color, 1.8 * color)

    return _repeat(seconds, _onsets(rng, seconds, rng.uniform(2, 6), 0.15), clap)


def cricket(rng: Generator, seconds: float) -> np.ndarray:
    """A wing comb: trains of fast pulses at one high pitch."""
    pitch, pulses, length = rng.uniform(3500, 5500), rng.uniform(25, 60), rng.uniform(0.08, 0.4)

    def trill() -> np.ndarray:
        t = _time(length)
        return np.hanning(len(t)) ** 0.3 * np.sin(np.pi * pulses * t) ** 2 * np.sin(2 * np.pi * pitch * t)

    return _repeat(seconds, _onsets(rng, seconds, rng.uniform(1.2, 3.5), 0.08), trill)


def glockenspiel(rng: Generator, seconds: float) -> np.ndarray:
    """Struck steel bars: the inharmonic partials of a bar free at both ends."""
    scale = rng.uniform(600, 1100) * 2 ** (np.array([0, 2, 4, 7, 9, 12]) / 12)

    def bar() -> np.ndarray:
        pitch, decays = rng.choice(scale), [rng.uniform(0.3, 0.9), 0.25, 0.1, 0.04]
        return _partials(_time(1.5), pitch, [1, 2.756, 5.404, 8.933], decays, rng)

    return _repeat(seconds, _onsets(rng, seconds, rng.uniform(1, 4), 0.2), bar)


def hi_hat(rng: Generator, seconds: float) -> np.ndarray:
    """Two cymbals: bright noise, cut short when closed, long when open."""
    low, closed, opened = rng.uniform(4000, 8000), rng.uniform(0.015, 0.05), rng.uniform(0.12, 0.4)

    def hit() -> np.ndarray:
        t = _time(0.8)
        return np.exp(-t / (opened if rng.random() < 0.25 else closed)) * _noise(rng, len(t), low, 20_000)

    return _repeat(seconds, _onsets(rng, seconds, rng.uniform(1.5, 6), 0.05), hit)


def knock(rng: Generator, seconds: float) -> np.ndarray:
    """Knuckles on a door: a few damped tones of the panel, in groups."""
    pitch, ratios = rng.uniform(120, 420), np.sort(rng.uniform(1, 5, 4))

    def hit() -> np.ndarray:
        t = _time(0.25)
        panel = _partials(t, pitch, ratios, rng.uniform(0.012, 0.04, 4), rng)
        return panel + 0.1 * np.exp(-t / 0.003) * _noise(rng, len(t), 300, 4000)

    starts = np.arange(0.02, seconds, 1.6)
    onsets = np.concatenate([start + np.arange(rng.integers(2, 5)) * rng.uniform(0.13, 0.25) for start in starts])
    return _repeat(seconds, onsets[onsets < seconds], hit)


def tick_tock(rng: Generator, seconds: float) -> np.ndarray:
    """A clock: regular clicks that alternate between two pitches."""
    pitches = rng.uniform(1500, 4500) * np.array([1, rng.uniform(0.7, 0.9)])
    onsets = np.arange(rng.uniform(0, 0.2), seconds, 1 / rng.choice([2, 2.5, 4, 5]))
    turns = iter(range(len(onsets)))

    def click() -> np.ndarray:
        t, pitch = _time(0.06), pitches[next(turns) % 2]
        return np.exp(-t / 0.004) * (np.sin(2 * np.pi * pitch * t) + 0.3 * _noise(rng, len(t), 1000, 9000))

    return _repeat(seconds, onsets, click)


def waves_and_surf(rng: Generator, seconds: float) -> np.ndarray:
    """Breakers: broad noise that swells and ebbs over seconds, brighter at the crest."""
    t = _time(seconds)
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * t / rng.uniform(2.5, 7) + rng.uniform(0, 6))
    rumble, hiss = _noise(rng, len(t), 60, rng.uniform(500, 1500)), _noise(rng, len(t), 800, rng.uniform(4000, 10_000))
    return swell * rumble + swell**3 * rng.uniform(0.3, 0.9) * hiss


RECIPES: dict[str, Callable[[Generator, float], np.ndarray]] = {
    "Acoustic_guitar": acoustic_guitar, "Bass_drum": bass_drum, "Buzz": buzz, "Chirp_and_tweet": chirp_and_tweet,
    "Church_bell": church_bell, "Clapping": clapping, "Cricket": cricket, "Glockenspiel": glockenspiel,
    "Hi-hat": hi_hat, "Knock": knock, "Tick-tock": tick_tock, "Waves_and_surf": waves_and_surf,
}  # fmt: skip


def _clip(rng: Generator, labels: list[str], noise_db: tuple[float, float]) -> np.ndarray:
    """One clip of 0.3 to 6 s with the sounds `labels`, over a background `noise_db` below its loudest point."""
    lengths = (0.3, 1) if rng.random() < 0.2 else (1, 4) if rng.random() < 0.8 else (4, 5.5)
    seconds = rng.uniform(*lengths)
    samples = np.zeros(int(seconds * RATE))
    for label in labels:
        sound = RECIPES[label](rng, seconds)[: len(samples)]
        samples += rng.uniform(0.6, 1) * sound / np.abs(sound).max()
    background = _noise(rng, len(samples), rng.uniform(20, 200), rng.uniform(2000, 18_000))
    samples = samples / np.abs(samples).max() + background * 10 ** (-rng.uniform(*noise_db) / 20)
    samples *= rng.uniform(0.1, 0.95) / np.abs(samples).max()
    if rng.random() < 0.2:
        samples = np.pad(samples, (rng.uniform(0.05, 0.25, 2) * RATE).astype(int))
    return samples


def make_mini_set(folder: str | Path) -> Path:
    """Write the mini set to `folder` if it does not exist: 240 curated, 72 noisy, 96 test clips, 12 classes, 90 MB.

    Clips are 16-bit mono WAV at 44.1 kHz. One in seven has a second sound and label; in the noisy set, the labels of
    two in five are redrawn, whatever the sound.
    """
    folder = Path(folder)
    if not (folder / "train_curated.csv").is_file():
        with files.atomic_folder(folder, replace=folder.is_dir()) as unfinished:
            _write(unfinished)
    return folder


def _write(folder: Path) -> None:
    for number, (name, clips_per_class) in enumerate(CLIPS.items()):
        (folder / name).mkdir(parents=True)
        rng = np.random.default_rng([SEED, number])
        labels = [_draw_labels(rng, label) for label in RECIPES for _ in range(clips_per_class)]
        fnames = [f"{value:08x}.wav" for value in rng.choice(2**32, len(labels), replace=False)]
        noise_db = (12, 30) if name == "train_noisy" else (20, 60)
        for fname, sounds in zip(fnames, labels):
            soundfile.write(folder / name / fname, _clip(rng, sounds, noise_db), RATE, subtype="PCM_16")
        if name == "train_noisy":
            labels = [_draw_labels(rng, rng.choice([*RECIPES])) if rng.random() < 0.4 else sounds for sounds in labels]
        table = pd.DataFrame({"fname": fnames, "labels": map(",".join, labels)}).sort_values("fname")
        tables = {f"{name}.csv": table}
        if name == "test":
            sample = table[["fname"]].assign(**dict.fromkeys(RECIPES, 0))
            tables = {TEST_LABELS: table, "sample_submission.csv": sample}
        for csv, rows in tables.items():
            rows.to_csv(folder / csv, index=False, lineterminator="\n")


def _draw_labels(rng: Generator, label: str) -> list[str]:
    other = rng.choice([name for name in RECIPES if name != label])
    return [label, str(other)] if rng.random() < 1 / 7 else [str(label)]
