from dataclasses import replace

import librosa
import numpy as np
import pytest
import soundfile

from tests.bench import librosa_log_mel
from utils.audio import load_clip
from utils.config import MelConfig
from utils.mel import griffin_lim, log_mel, mel_filters, trim

SETTINGS = MelConfig()


@pytest.mark.parametrize(
    "settings", [SETTINGS, MelConfig(sample_rate=16_000, n_fft=1024, hop_length=160, n_mels=64, fmax=8000)]
)
@pytest.mark.parametrize("seconds", [0.0001, 0.3, 2, 7.3])
def test_log_mel_matches_librosa(settings, seconds):
    rng = np.random.default_rng(int(seconds * 10))
    t = np.arange(max(1, int(seconds * settings.sample_rate))) / settings.sample_rate
    chirp = np.sin(2 * np.pi * (200 + 900 * t) * t) * np.exp(-t) + rng.normal(0, 1e-4, len(t))
    for samples in (chirp, rng.uniform(-1, 1, len(t)), np.zeros(len(t))):
        ours = log_mel(samples.astype(np.float32), settings)
        assert ours.dtype == np.float32
        assert ours.shape == (settings.n_mels, 1 + len(t) // settings.hop_length)
        assert np.abs(ours - librosa_log_mel(samples.astype(np.float32), settings)).max() < 0.01


def test_trim_matches_librosa():
    rng = np.random.default_rng(0)
    for _ in range(300):
        samples = rng.standard_normal(rng.integers(1, 30_000)).astype(np.float32)
        ends = np.sort(rng.integers(0, len(samples) + 1, 2))
        samples[: ends[0]] *= 10 ** rng.uniform(-6, 0)
        samples[ends[1] :] *= rng.choice([0, 1e-4, 1])
        expected = librosa.effects.trim(samples, top_db=SETTINGS.trim_db)[0]
        assert np.array_equal(trim(samples, SETTINGS), expected)


def test_filter_centers_follow_the_papers_formula():
    def mel(hz):
        return 2595 * np.log10(1 + hz / 700)

    fine = replace(SETTINGS, n_fft=2**17)  # bins of 0.34 Hz, so that the peak of a filter is its center
    centers = mel_filters(fine).argmax(axis=1) * fine.sample_rate / fine.n_fft
    expected = np.linspace(mel(fine.fmin), mel(fine.fmax), fine.n_mels + 2)[1:-1]
    assert np.abs(mel(centers) - expected).max() < 0.3  # half a bin, at the lowest frequency


def test_two_seconds_are_128_frames():
    assert log_mel(np.ones(2 * 44_100, np.float32), SETTINGS).shape == (128, 128)


def test_load_clip_mixes_down_and_resamples(tmp_path):
    t = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "stereo.ogg", np.stack([1.5 * tone, tone / 2], axis=1), 8000)
    samples = load_clip(tmp_path / "stereo.ogg", SETTINGS)
    assert samples.dtype == np.float32
    assert len(samples) == 44_100
    assert np.abs(np.fft.rfft(samples)).argmax() == 440
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("hz", [300, 3000, 9000])
def test_an_inverted_spectrogram_has_the_pitch_and_loudness_of_the_sound(hz):
    tone = 0.4 * np.sin(2 * np.pi * hz * np.arange(2 * 44_100) / 44_100).astype(np.float32)
    sound = griffin_lim(log_mel(tone, SETTINGS), SETTINGS)
    assert np.abs(np.fft.rfft(sound)).argmax() * 44_100 / len(sound) == pytest.approx(hz, rel=0.02)
    assert sound.std() == pytest.approx(tone.std(), rel=0.1)


def test_filters_beyond_nyquist_are_rejected():
    with pytest.raises(ValueError, match="set 0 <= fmin < fmax <= 8000 Hz, half of the sample rate"):
        MelConfig(sample_rate=16_000)


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.zeros(0), r"mono samples .* got shape \(0,\)"),
        (np.zeros((2, 100)), r"mono samples .* got shape \(2, 100\)"),
        (np.array([np.nan]), "finite samples"),
    ],
)
def test_log_mel_rejects_invalid_samples(samples, sentence):
    with pytest.raises(ValueError, match=sentence):
        log_mel(samples, SETTINGS)
