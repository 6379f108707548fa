import os
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
from distributed import Client, LocalCluster

from utils import mel_cache
from utils.config import MelConfig
from utils.mel import clip_to_log_mel

SETTINGS = MelConfig()


def test_the_cache_holds_every_clip_in_order(competition, cache):
    assert list(cache.clips["fname"]) == list(competition.curated["fname"])
    assert len(cache.frames) == cache.clips["length"].sum()
    for clip in competition.curated.iloc[[0, 17, -1]].itertuples():
        expected = clip_to_log_mel(clip.path, SETTINGS)
        assert np.array_equal(cache[clip.fname], expected.astype(np.float16))
        pad_value = cache.clips.set_index("fname").loc[clip.fname, "pad_value"]
        assert pad_value == pytest.approx(expected.max() - SETTINGS.top_db, abs=0.05)
    with pytest.raises(KeyError, match=r"absent\.wav"):
        cache["absent.wav"]
    twice = competition.curated.iloc[[0, 1, 0]]
    with pytest.raises(ValueError, match=r"curated: .*\.wav is listed more than once"):
        mel_cache.build(twice, cache.folder.parent, "curated", SETTINGS)


def test_copies_share_a_hash_and_clips_that_begin_and_end_alike_do_not(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 5000))
    for name, samples in {"a.wav": noise[0], "b.wav": noise[1], "a.flac": noise[0]}.items():
        padded = np.concatenate([np.full(5000, 1e-2), samples, np.zeros(60_000), np.full(5000, 1e-2)])
        soundfile.write(tmp_path / name, (padded * 2**15).astype("int16"), 44_100)
    table = pd.DataFrame({"fname": ["a.wav", "b.wav", "a.flac"]})
    table["path"] = [str(tmp_path / fname) for fname in table["fname"]]
    a, b, copy = mel_cache.build(table, tmp_path, "curated", SETTINGS, n_jobs=1).clips["content_hash"]
    assert a == copy != b
    other = mel_cache.build(table, tmp_path, "curated", replace(SETTINGS, n_mels=64), n_jobs=1).clips["content_hash"]
    assert list(other) == [a, b, copy]  # it is of the sound, not of its frames, which processors round differently


def test_the_cache_is_reused_only_for_the_same_clips_settings_and_version(competition, tmp_path, monkeypatch, capsys):
    table = competition.curated.iloc[:4]
    first = mel_cache.build(table, tmp_path, "curated", SETTINGS, n_jobs=1)
    assert mel_cache.build(table, tmp_path, "curated", SETTINGS, n_jobs=1).folder == first.folder
    assert "reused" in capsys.readouterr().out
    assert mel_cache.load(table, tmp_path, "curated", SETTINGS).folder == first.folder
    for other_table, other_settings in [
        (table.iloc[::-1], SETTINGS),
        (table.iloc[:3], SETTINGS),
        (table, MelConfig(n_mels=64)),
    ]:
        with pytest.raises(FileNotFoundError, match="run 02_preprocessing first"):
            mel_cache.load(other_table, tmp_path, "curated", other_settings)
    monkeypatch.setattr(mel_cache, "VERSION", mel_cache.VERSION + 1)
    with pytest.raises(FileNotFoundError, match="run 02_preprocessing first"):
        mel_cache.load(table, tmp_path, "curated", SETTINGS)


def test_a_dask_cluster_makes_the_same_cache_byte_for_byte(competition, cache, tmp_path):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        with joblib.parallel_config(backend="dask"):
            spread = mel_cache.build(competition.curated, tmp_path, "curated", SETTINGS)
        tasks = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert len(tasks) == 2
    assert min(tasks.values()) > 1
    for name in ("frames.npy", "clips.csv", "settings.json"):
        assert (spread.folder / name).read_bytes() == (cache.folder / name).read_bytes()


def test_a_killed_worker_is_reported_with_the_remedy(competition, tmp_path, monkeypatch):
    monkeypatch.setattr(mel_cache, "_frames", lambda *_: os._exit(1))
    with pytest.raises(MemoryError, match="set LOKY_MAX_CPU_COUNT=1 to read one file at a time"):
        mel_cache.build(competition.curated.head(40), tmp_path, "curated", SETTINGS, n_jobs=2)
    assert list(tmp_path.iterdir()) == []


def test_workers_do_not_run_ahead_of_a_slow_disk(tmp_path, monkeypatch):
    """Workers get more clips only when most of what they have been given is written."""
    soundfile.write(tmp_path / "x.wav", np.ones(5000) / 2, 44_100)
    table = pd.DataFrame({"fname": [str(i) for i in range(1000)], "path": str(tmp_path / "x.wav")})
    given, written = [], []

    class Counted(joblib.Parallel):
        def __call__(self, tasks):
            given.append((len(tasks), len(written)))
            return super().__call__(tasks)

    monkeypatch.setattr(joblib, "Parallel", Counted)
    monkeypatch.setattr(mel_cache, "tqdm", lambda frames, *_, **__: (written.append(1) or each for each in frames))
    with joblib.parallel_config(backend="threading"):
        cache = mel_cache.build(table, tmp_path, "slow", SETTINGS, n_jobs=2)
    assert list(cache.clips["fname"]) == list(table["fname"])
    most = 2 * mel_cache.TASKS_AHEAD * mel_cache.CHUNK
    assert most < len(table) / 2
    for number, (_, done) in enumerate(given, 1):
        assert mel_cache.CHUNK * sum(tasks for tasks, _ in given[:number]) - done <= most
