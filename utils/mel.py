"""Compute the log-mel spectrogram of a clip."""

from functools import lru_cache
from pathlib import Path

import librosa
import numpy as np
import scipy.fft
import scipy.sparse

from .audio import load_clip
from .config import MelConfig

BLOCK = 64  # frames transformed at once: few enough to stay in the processor's cache


def trim(samples: np.ndarray, settings: MelConfig) -> np.ndarray:
    """Trim the ends that stay `settings.trim_db` below the loudest frame (paper, section III).

    Returns what `librosa.effects.trim` does, with its frames of 2048 samples every 512, in one pass over the samples.
    """
    hop = 512
    blocks = np.pad(samples, (2 * hop, 3 * hop - len(samples) % hop)).reshape(-1, hop)
    energy = np.einsum("ij,ij->i", blocks, blocks)
    loudness = np.maximum((energy[:-3] + energy[1:-2] + energy[2:-1] + energy[3:]) / (4 * hop), 1e-10)
    loud = np.flatnonzero(loudness > loudness.max() * 10 ** (-settings.trim_db / 10))
    return samples[loud[0] * hop : (loud[-1] + 1) * hop]


@lru_cache
def mel_filters(settings: MelConfig) -> np.ndarray:
    """Return triangular filters of equal area, float32 (n_mels, 1 + n_fft / 2).

    Their centers are evenly spaced in m = 2595 log10(1 + f / 700) (paper, section III), which is HTK's mel scale.
    """
    return librosa.filters.mel(
        sr=settings.sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels,
        fmin=settings.fmin, fmax=settings.fmax, htk=True,
    )  # fmt: skip


@lru_cache
def _sparse_filters(settings: MelConfig) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(mel_filters(settings))  # each filter covers a few of the bins


@lru_cache
def _window(n_fft: int) -> np.ndarray:
    return librosa.filters.get_window("hann", n_fft, fftbins=True).astype(np.float32)


def log_mel(samples: np.ndarray, settings: MelConfig) -> np.ndarray:
    """Compute a log-mel spectrogram, float32 (n_mels, frames), in dB of power: 0 dB is a power of 1, not full scale.

    `samples`: mono, shape (n,). Frame i is centered on sample i * hop_length, with zeros beyond the ends, so there are
    1 + n // hop_length frames. Values more than `top_db` below the maximum, or below the level of `amin`, are clipped.
    Raises ValueError if samples are empty, not finite or not mono.
    """
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"log_mel needs mono samples of shape (n,), n > 0, but got shape {samples.shape}.")
    if not np.isfinite(samples).all():
        raise ValueError("log_mel needs finite samples, but some are not.")
    padded = np.pad(samples, settings.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop_length]
    filters, window = _sparse_filters(settings), _window(settings.n_fft)
    power = np.empty((settings.n_mels, len(frames)), dtype=np.float32)
    for i in range(0, len(frames), BLOCK):
        spectrum = scipy.fft.rfft(frames[i : i + BLOCK] * window)
        power[:, i : i + BLOCK] = filters @ (spectrum.real**2 + spectrum.imag**2).T
    return librosa.power_to_db(power, amin=settings.amin, top_db=settings.top_db)


def griffin_lim(log_mel: np.ndarray, settings: MelConfig) -> np.ndarray:
    """Invert `log_mel`, (n_mels, frames), approximately: mono float32 samples with estimated phases."""
    magnitude = librosa.feature.inverse.mel_to_stft(
        librosa.db_to_power(log_mel), sr=settings.sample_rate, n_fft=settings.n_fft,
        fmin=settings.fmin, fmax=settings.fmax, htk=True,
    )  # fmt: skip
    return librosa.griffinlim(magnitude, hop_length=settings.hop_length, n_fft=settings.n_fft, init=None)


def clip_to_log_mel(path: str | Path, settings: MelConfig) -> np.ndarray:
    """Read, trim and transform one file: float32 (n_mels, frames), as many frames as the clip is long."""
    return log_mel(trim(load_clip(path, settings), settings), settings)
