import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import joblib
import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
from distributed import Client, LocalCluster

from utils import mel
from utils.audio import load_clip
from utils.config import MelConfig
from utils.mel import build_cache, clip_to_log_mel, fit_length, load_cache, log_mel, mel_filters, trim

SETTINGS = MelConfig()


def plain_librosa(samples, s):
    power = librosa.feature.melspectrogram(
        y=samples,
        sr=s.sample_rate,
        n_fft=s.n_fft,
        hop_length=s.hop_length,
        n_mels=s.n_mels,
        fmin=s.fmin,
        fmax=s.fmax,
        htk=True,
    )
    return librosa.power_to_db(power, amin=s.amin, top_db=s.top_db)


@pytest.mark.parametrize(
    "settings", [SETTINGS, MelConfig(sample_rate=16_000, n_fft=1024, hop_length=160, n_mels=64, fmax=8000)]
)
@pytest.mark.parametrize("seconds", [0.0001, 0.3, 2, 7.3])
def test_log_mel_is_librosas(settings, seconds):
    rng = np.random.default_rng(int(seconds * 10))
    t = np.arange(max(1, int(seconds * settings.sample_rate))) / settings.sample_rate
    chirp = np.sin(2 * np.pi * (200 + 900 * t) * t) * np.exp(-t) + rng.normal(0, 1e-4, len(t))
    for samples in (chirp, rng.uniform(-1, 1, len(t)), np.zeros(len(t))):
        ours = log_mel(samples.astype(np.float32), settings)
        assert ours.dtype == np.float32
        assert ours.shape == (settings.n_mels, 1 + len(t) // settings.hop_length)
        assert np.abs(ours - plain_librosa(samples.astype(np.float32), settings)).max() < 0.01


def test_trim_is_librosas():
    rng = np.random.default_rng(0)
    for _ in range(300):
        samples = rng.standard_normal(rng.integers(1, 30_000)).astype(np.float32)
        ends = np.sort(rng.integers(0, len(samples) + 1, 2))
        samples[: ends[0]] *= 10 ** rng.uniform(-6, 0)
        samples[ends[1] :] *= rng.choice([0, 1e-4, 1])
        expected = librosa.effects.trim(samples, top_db=SETTINGS.trim_db)[0]
        assert np.array_equal(trim(samples, SETTINGS), expected)


def test_log_mel_is_librosas_on_the_mini_set(competition):
    for path in competition.curated["path"][::10]:
        samples = trim(load_clip(path, SETTINGS), SETTINGS)
        assert np.abs(log_mel(samples, SETTINGS) - plain_librosa(samples, SETTINGS)).max() < 0.01


def test_filter_centres_follow_the_papers_formula():
    def mel(hz):
        return 2595 * np.log10(1 + hz / 700)

    fine = replace(SETTINGS, n_fft=2**17)  # bins of 0.34 Hz, so that the peak of a filter is its centre
    centres = mel_filters(fine).argmax(axis=1) * fine.sample_rate / fine.n_fft
    expected = np.linspace(mel(fine.fmin), mel(fine.fmax), fine.n_mels + 2)[1:-1]
    assert np.abs(mel(centres) - expected).max() < 0.3  # half a bin, where a mel is least Hz


def test_two_seconds_are_128_frames():
    assert log_mel(fit_length(np.ones(10_000, np.float32), 2 * 44_100), SETTINGS).shape == (128, 128)
    assert log_mel(fit_length(np.ones(200_000, np.float32), 2 * 44_100), SETTINGS).shape == (128, 128)


def test_load_clip_mixes_down_and_resamples(tmp_path):
    t = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "stereo.ogg", np.stack([tone, tone], axis=1), 8000)
    samples = load_clip(tmp_path / "stereo.ogg", SETTINGS)
    assert samples.dtype == np.float32
    assert len(samples) == 44_100
    assert np.abs(np.fft.rfft(samples)).argmax() == 440
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


def test_a_file_that_is_no_clip_gets_one_sentence(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 44_100)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), 44_100, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    for name in ("empty.wav", "nan.wav", "text.wav", "absent.wav"):
        with pytest.raises(ValueError, match=rf"{name}.*replace the file, or remove its row"):
            load_clip(tmp_path / name, SETTINGS)


@pytest.mark.parametrize("samples", [np.zeros(0), np.array([np.nan]), np.zeros((2, 100))])
def test_log_mel_refuses_what_is_no_clip(samples):
    with pytest.raises(ValueError, match="finite mono samples"):
        log_mel(samples, SETTINGS)


def test_the_cache_holds_every_clip_in_its_place(competition, cache):
    assert list(cache.clips["fname"]) == list(competition.curated["fname"])
    assert len(cache.frames) == cache.clips["length"].sum()
    for clip in competition.curated.iloc[[0, 17, -1]].itertuples():
        expected = clip_to_log_mel(clip.path, SETTINGS)
        assert np.array_equal(cache[clip.fname], expected.astype(np.float16))
        pad_value = cache.clips.set_index("fname").loc[clip.fname, "pad_value"]
        assert pad_value == pytest.approx(expected.max() - SETTINGS.top_db, abs=0.05)
    with pytest.raises(KeyError, match=r"absent\.wav"):
        cache["absent.wav"]


def test_the_cache_is_reused_only_for_the_same_clips_and_settings(competition, tmp_path, capsys):
    table = competition.curated.iloc[:4]
    first = build_cache(table, tmp_path, "curated", SETTINGS, n_jobs=1)
    assert build_cache(table, tmp_path, "curated", SETTINGS, n_jobs=1).folder == first.folder
    assert "reused" in capsys.readouterr().out
    assert load_cache(table, tmp_path, "curated", SETTINGS).folder == first.folder
    for other_table, other_settings in [
        (table.iloc[::-1], SETTINGS),
        (table.iloc[:3], SETTINGS),
        (table, MelConfig(n_mels=64)),
    ]:
        with pytest.raises(FileNotFoundError, match="run 02_preprocessing first"):
            load_cache(other_table, tmp_path, "curated", other_settings)


def test_a_dask_cluster_makes_the_same_cache_byte_for_byte(competition, cache, tmp_path):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        with joblib.parallel_config(backend="dask"):
            spread = build_cache(competition.curated, tmp_path, "curated", SETTINGS)
        tasks = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert len(tasks) == 2
    assert min(tasks.values()) > 1
    for name in ("frames.npy", "clips.csv", "settings.json"):
        assert (spread.folder / name).read_bytes() == (cache.folder / name).read_bytes()


def test_workers_do_not_run_ahead_of_a_slow_disk(tmp_path, monkeypatch):
    """Where the writer stops at the first clip, so many results wait for it and no more."""
    soundfile.write(tmp_path / "x.wav", np.ones(5000) / 2, 44_100)
    clips, loaded, ahead = 1000, [], []
    table = pd.DataFrame({"fname": [str(i) for i in range(clips)], "path": str(tmp_path / "x.wav")})

    def counted(path, settings):
        loaded.append(path)
        return load_clip(path, settings), ""

    def slow(frames, *_, **__):
        for each in frames:
            while not ahead:
                before = len(loaded)
                time.sleep(0.5)
                if len(loaded) == before:
                    ahead.append(before)
            yield each

    monkeypatch.setattr(mel, "load_clip_and_damage", counted)
    monkeypatch.setattr(mel, "tqdm", slow)
    with joblib.parallel_config(backend="threading"):
        cache = build_cache(table, tmp_path, "slow", SETTINGS, n_jobs=2)
    assert list(cache.clips["fname"]) == list(table["fname"])
    assert ahead[0] <= 2 * mel.TASKS_AHEAD * mel.CHUNK < clips / 2


def test_a_cache_killed_half_way_is_made_anew(competition, tmp_path):
    code = f"""
import pandas as pd, utils.mel as mel
from utils.config import MelConfig
from utils.data import Competition
table = Competition({str(competition.folder)!r}).curated.iloc[:20]
load = mel.load_clip_and_damage
def slow(path, settings):
    print("working", flush=True)
    import time; time.sleep(0.2)
    return load(path, settings)
mel.load_clip_and_damage = slow
mel.build_cache(table, {str(tmp_path)!r}, "curated", MelConfig(), n_jobs=1)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=os.path.dirname(os.path.dirname(__file__)), stdout=subprocess.PIPE
    )
    while b"working" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    table = competition.curated.iloc[:20]
    with pytest.raises(FileNotFoundError):
        load_cache(table, tmp_path, "curated", SETTINGS)
    cache = build_cache(table, tmp_path, "curated", SETTINGS, n_jobs=1)
    assert np.array_equal(cache[table["fname"][19]], clip_to_log_mel(table["path"][19], SETTINGS).astype(np.float16))
