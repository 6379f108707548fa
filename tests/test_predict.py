import io
import json
import os
import re
import shutil
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from utils import audio, config, inference, mel_cache, plots, predict, runs, splits, workspace
from utils.run_folder import Run

RATE = 44_100


class Loudness(torch.nn.Module):
    """Scores class i by the loudness of the i-th twelfth of the bands."""

    def forward(self, x):
        return torch.stack([part.float().mean(dim=(1, 2, 3)) / 20 for part in x.tensor_split(12, dim=2)], dim=1)


def tone(path, seconds, begin, end, rate=RATE):
    """Write near silence with a 1 kHz tone in it; times are in seconds."""
    t = np.arange(int(seconds * rate)) / rate
    samples = 1e-4 * np.random.default_rng(0).standard_normal(len(t))
    soundfile.write(path, samples + 0.5 * np.sin(2000 * np.pi * t) * (t >= begin) * (t < end), rate)
    return path


def test_scores_match_score_run(run, sets, competition):
    few = sets[1].subset(np.arange(12))
    scores = predict.tag(list(few.table["path"]), run)
    assert list(scores.index) == list(few.table["fname"])
    assert list(scores.columns) == competition.classes
    assert np.allclose(scores, inference.score_run(run, few), atol=1e-5)


def test_sounds_of_every_format_are_found_and_scored(run, tmp_path, capsys):
    sound = 0.3 * np.random.default_rng(0).standard_normal((12_000, 2))
    names = ["a/stereo.OGG", "a/b/deep.mp3", "c.flac", "c.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, sound[:, 0] if name == "c.wav" else sound, 8000)
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / "._c.wav").write_text("no sound either")
    scores = predict.tag(tmp_path, run)
    assert "skipped 1 of 5 files, such as notes.txt" in capsys.readouterr().out
    assert list(scores.index) == sorted(names)
    assert scores.to_numpy().min() >= 0
    assert scores.to_numpy().max() <= 1
    assert list(predict.tag(str(tmp_path / "c.wav"), run).index) == ["c.wav"]
    soundfile.write(tmp_path / "a" / "c.wav", sound, 8000)
    twice = [tmp_path / "c.wav", tmp_path / "a" / "c.wav"]
    assert list(predict.tag([*twice, twice[0]], run).index) == [str(path) for path in twice]


def test_top_classes_are_the_highest_first():
    scores = pd.DataFrame(
        [[0.1, 0.9, 0.5], [0.7, 0.2, 0.3]], index=pd.Index(["x", "y"], name="fname"), columns=list("ABC")
    )
    rows = predict.top_classes(scores, k=2).to_numpy().tolist()
    assert rows == [["x", "B", 0.9], ["x", "C", 0.5], ["y", "A", 0.7], ["y", "C", 0.3]]
    assert len(predict.top_classes(scores, k=9)) == 6


@pytest.mark.parametrize("rate", [RATE, 16_000])
def test_tags_over_time_have_times_of_the_untrimmed_recording(run, tmp_path, monkeypatch, rate):
    monkeypatch.setattr(Run, "models", lambda self: [Loudness()])
    scores = predict.tag_over_time(tone(tmp_path / "tone.wav", 10, 6, 8, rate), run)
    assert list(scores.index) == list(range(1, 10))  # trimming would remove the near silence before the tone
    heard = scores[scores.max().idxmax()]
    assert heard.idxmax() == 7
    assert heard.drop([6, 7, 8]).max() < heard[6] < heard[7] > heard[8]
    assert heard[6] == pytest.approx(heard[8], abs=0.02)


def test_a_louder_sound_elsewhere_does_not_change_a_window(run, tmp_path):
    noise = np.random.default_rng(0).uniform(-1, 1, 8 * RATE)
    noise[RATE:] *= np.linspace(1e-3, 1e-4, 7 * RATE)  # 60 to 80 dB below the first second
    scores = []
    for name, loudness in (("loud", 1), ("quiet", 1e-3)):
        noise[:RATE] *= loudness
        soundfile.write(tmp_path / f"{name}.wav", noise, RATE, subtype="FLOAT")
        scores.append(predict.tag_over_time(tmp_path / f"{name}.wav", run))
    assert np.allclose(scores[0].loc[3:], scores[1].loc[3:], atol=1e-5)
    assert not np.allclose(scores[0].loc[:2], scores[1].loc[:2], atol=1e-2)


@pytest.mark.parametrize("peak", [0.5, 0.005, 0])  # with the second, 80 dB below is less than the least level
def test_nothing_is_heard_in_silence(run, tmp_path, peak):
    samples = np.zeros(15 * RATE)
    samples[3 * RATE : 4 * RATE] = peak * np.random.default_rng(0).uniform(-1, 1, RATE)
    soundfile.write(tmp_path / "x.wav", samples, RATE)
    scores = predict.tag_over_time(tmp_path / "x.wav", run)
    assert (scores.loc[4] > 0).all() == (peak > 0)
    assert (scores.drop([2, 3, 4, 5]) == 0).all(axis=None)
    seldom = predict.tag_over_time(tmp_path / "x.wav", run, seconds=5)
    assert (seldom == 0).all(axis=None)  # the sound is between two windows


def test_windows_cover_the_recording_and_little_more(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "models", lambda self: [Loudness()])
    for duration in (0.3, 2, 2.4, 2.6, 7.3, 9.9):
        path = tone(tmp_path / f"{duration}.wav", duration, 0, duration)
        for seconds in (0.25, 1, 5):
            middles = predict.tag_over_time(path, run, seconds).index
            assert middles[0] == 1
            assert np.allclose(np.diff(middles), seconds)
            assert len(middles) == 1 or abs(middles[-1] + 1 - duration) <= max(min(seconds, 2) / 2, seconds - 1) + 0.02
            assert middles[-1] <= max(1, duration) + 0.02
    with pytest.raises(ValueError, match=r"make it 0\.016 or more"):
        predict.tag_over_time(path, run, 0)


@pytest.mark.parametrize("duration", [0.3, 12])
def test_the_plot_shows_the_top_classes_and_the_time_in_the_recording(run, tmp_path, duration):
    path = tone(tmp_path / "tone.wav", duration, 0, duration)
    scores = predict.tag_over_time(path, run)
    plots.tags_over_time(audio.load_clip(path, run.mel), scores, run.mel)
    upper, lower = plt.gcf().axes[:2]
    assert upper.get_xlim() == lower.get_xlim() == (0, duration)
    names = [label.get_text() for label in lower.get_yticklabels()]
    peaks = scores[scores.max().nlargest(5).index].idxmax().sort_values(kind="stable")
    assert sorted(names) == sorted(plots.display_name(name) for name in peaks.index)
    assert list(peaks) == [scores[name.replace(" ", "_")].idxmax() for name in names[::-1]]
    plt.close()


def test_detections_are_series_of_windows_that_reach_the_threshold(run):
    seconds = pd.Index([1.0, 2, 3, 4, 5], name="seconds")
    scores = pd.DataFrame({"A": [0.1, 0.5, 0.9, 0.2, 0.7], "B": [0.6, 0.1, 0.1, 0.1, 0.1], "C": 0.0}, index=seconds)
    rows = predict.detections(scores, run).to_numpy().tolist()
    assert rows == [[0, 2, "B", 0.6], [1, 4, "A", 0.9], [4, 6, "A", 0.7]]
    assert predict.detections(scores, run, threshold=0.95).empty
    assert len(predict.detections(scores, run, threshold=0)) == 3


def test_the_command_line_lists_detections_in_whole_recordings(run, tmp_path, monkeypatch, capsys, refused):
    monkeypatch.setattr(Run, "models", lambda self: [Loudness()])
    tone(tmp_path / "a.wav", 40, 31, 34)  # between two of the eight excerpts
    tone(tmp_path / "c.wav", 3, 0, 0)
    (tmp_path / "b.wav").write_text("no sound")
    label = predict.tag_over_time(tmp_path / "a.wav", run).max().idxmax()
    level = predict.tag_over_time(tmp_path / "a.wav", run)[label].max() - 0.01
    file = tmp_path / "found.csv"
    arguments = [str(tmp_path), "--run", str(run.folder), "--detections", str(file), "--threshold", str(level)]
    predict.main(arguments)
    printed = capsys.readouterr().out
    assert "b.wav cannot be read as audio" in printed
    assert re.search(rf"{label} +1\n", printed)
    found = pd.read_csv(file)
    assert list(found.columns) == ["fname", "start", "end", "labels", "score"]
    assert found[["fname", "labels"]].to_numpy().tolist() == [["a.wav", label]]
    assert 30 <= found["start"][0] < 32 < 33 < found["end"][0] <= 35
    assert printed.endswith("1 detections in 2 of 3 sounds\n")
    assert "--detections is a command of its own" in refused(predict.main, *arguments, "--csv", "scores.csv")
    assert "--threshold is 50.0: give a score above 0" in refused(predict.main, *arguments, "--threshold", "50")
    before = file.read_text()
    assert f"{file} exists, perhaps corrected by hand" in refused(predict.main, *arguments)
    assert file.read_text() == before
    file.unlink()
    assert "None of 1 sounds can be scored" in refused(predict.main, tmp_path / "b.wav", *arguments[1:])
    assert not file.exists()

    def interrupted(path, run, device):
        if path.endswith("c.wav"):
            assert file.read_text() == before  # those of the first sound, so a kill would keep them
            raise KeyboardInterrupt
        return scores(path, run, device=device)

    scores = predict.tag_over_time
    monkeypatch.setattr(predict, "tag_over_time", interrupted)
    assert "Stopped." in refused(predict.main, *arguments)


@pytest.mark.parametrize("option", ["--csv", "--detections", "--over_time"])
def test_no_output_replaces_a_sound(tmp_path, refused, option):
    (tmp_path / "a.MP3").write_text("a sound")
    for name in ("a.MP3", "."):
        assert "is a sound or a folder" in refused(predict.main, "b.mp3", option, tmp_path / name)
    assert (tmp_path / "a.MP3").read_text() == "a sound"


def test_silence_has_no_tags_and_is_no_copy(run, tmp_path, capsys):
    soundfile.write(tmp_path / "silence.wav", np.zeros(3 * RATE), RATE)
    assert not predict.tag(tone(tmp_path / "tone.wav", 3, 1, 2), run).eq(0).any(axis=None)
    assert predict.tag(tmp_path / "silence.wav", run).eq(0).all(axis=None)
    assert predict.tag_over_time(tmp_path / "silence.wav", run).eq(0).all(axis=None)
    assert "1 of 1 clips are silent, such as silence.wav" in capsys.readouterr().out
    soundfile.write(tmp_path / "again.wav", np.zeros(3 * RATE), RATE)
    table = pd.DataFrame({"fname": ["silence.wav", "again.wav"]})
    table["path"] = [str(tmp_path / fname) for fname in table["fname"]]
    hashes = mel_cache.build(table, tmp_path, "silences", run.mel).clips
    assert len(np.unique(splits.groups(hashes))) == 2


def test_it_is_said_that_long_sounds_are_scored_by_excerpts(run, tmp_path, capsys):
    for name, seconds in (("long", 20), ("short", 10)):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).uniform(-1, 1, seconds * 8000), 8000)
    predict.tag(tmp_path, run)
    assert "1 of 2 sounds are longer than the 8 excerpts of 2 s that these scores are from" in capsys.readouterr().out


def test_missing_or_unreadable_sounds_are_reported(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav does not exist"):
        predict.tag(tmp_path / "nowhere.wav", run)
    with pytest.raises(FileNotFoundError, match="There is no sound in"):
        predict.tag(tmp_path, run)
    with pytest.raises(ValueError, match="at least one file or folder"):
        predict.tag([], run)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.wav cannot be read as audio"):
        predict.tag_over_time(tmp_path / "text.wav", run)
    with pytest.raises(ValueError, match=r"none of 1 clips can be read:\n.*text\.wav cannot be read as audio"):
        predict.tag(tmp_path, run)


def test_unreadable_files_are_reported_and_the_others_tagged(run, tmp_path, capsys):
    names = [f"text{number}.wav" for number in range(12)]
    for name in names:
        (tmp_path / name).write_text("no sound")
    tone(tmp_path / "tone.wav", 3, 1, 2)
    assert list(predict.tag(tmp_path, run).index) == ["tone.wav"]
    printed = capsys.readouterr().out
    assert all(f"  {name} cannot be read as audio" in printed for name in names)
    assert "csv" not in printed  # the temporary cache and its report are gone


def test_the_command_line_uses_the_best_run_and_writes_files(run, tmp_path, monkeypatch, capsys, refused):
    monkeypatch.setenv("FAT_WORK", str(run.folder.parents[2]))
    path = tone(tmp_path / "tone.wav", 3, 1, 2)
    table, plot = tmp_path / "scores.csv", tmp_path / "plot.png"
    predict.main([str(path), "--top", "2", "--csv", str(table), "--over_time", str(plot)])
    shown = capsys.readouterr().out
    assert str(run.folder) in shown
    assert runs.ON_MINI_SET not in shown
    assert shown.count("tone.wav") == 2
    written = pd.read_csv(table, index_col="fname")
    device, _ = workspace.find_device()
    rounding = 0.02 if device == "cuda" else 1e-5  # two calls may use other kernels
    assert np.allclose(written, predict.tag(path, run, device), rtol=rounding, atol=1e-6)
    assert plot.read_bytes().startswith(b"\x89PNG")
    for place in ("mini-2019-abc/deep_cnn-quick", "mini-2019-abc/best-quick/fold0"):
        predict.main([str(path), "--run", str(shutil.copytree(run.folder, tmp_path / place))])
        assert runs.ON_MINI_SET in capsys.readouterr().out
    monkeypatch.setenv("FAT_WORK", str(tmp_path))
    for arguments, sentence in [
        ([path], "There is no run in"),
        ([path, "--run", tmp_path], "is not a run"),
        ([tmp_path, "--over_time", "plot.png"], "give one file"),
        ([path, "--top", "0"], "give 1 or more"),
    ]:
        assert sentence in refused(predict.main, *arguments)


def test_a_console_without_the_letters_of_a_file_name_is_no_error(run, tmp_path, monkeypatch):
    path = tone(tmp_path / "Ł.wav", 1, 0, 1)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    predict.main([str(path), "--run", str(run.folder), "--top", "1"])
    sys.stdout.flush()
    assert b"?.wav" in sys.stdout.buffer.getvalue()


def test_the_best_run_may_be_attached_and_is_the_best_of_those_with_most_classes(run, tmp_path, monkeypatch, capsys):
    """On Kaggle the work folder is empty at first, and few classes are easier to tell apart than many."""
    monkeypatch.setattr(config, "KAGGLE_INPUT", tmp_path / "input")
    monkeypatch.setenv("FAT_WORK", str(tmp_path / "working"))
    with pytest.raises(
        FileNotFoundError, match=r"There is no run in .*: make one \(python -m utils.run --data DIR 02 03\)"
    ):
        runs.best_run()
    attached = shutil.copytree(run.folder, tmp_path / "input/notebooks/someone/kit-03-cnn/runs/real-abc/deep_cnn-quick")
    assert runs.best_run().folder == attached
    worse = shutil.copytree(attached, attached.with_name("worse"))
    run.validation.assign(**dict.fromkeys(run.classes, 0.5)).to_csv(worse / "validation_scores.csv", index=False)
    assert runs.best_run().folder == attached
    best = worse.rename(attached.with_name("best-full"))
    assert runs.best_run().folder == best  # its blend is better than the LWLRAP of one of its models
    shutil.rmtree(best)
    other = shutil.copytree(attached.parent, attached.parents[1] / "real-xyz") / "deep_cnn-quick"
    for seconds, newest in ((0, attached), (2**32, other)):
        os.utime(other / "settings.json", (seconds, seconds))
        assert runs.best_run().folder == newest
    shutil.rmtree(other.parent)
    mine = shutil.copytree(attached, tmp_path / "working/runs/real-abc/deep_cnn-quick")
    runs.find_runs(mine.parent)
    assert f"{attached} is not used: {mine} has the same name" in capsys.readouterr().out
    assert runs.best_run().folder == mine
    shutil.rmtree(mine.parent)
    few = shutil.copytree(run.folder, tmp_path / "working/runs/own-def/deep_cnn-quick")
    names = run.classes[:2]
    (few / "settings.json").write_text(json.dumps(run.record | {"classes": names}))
    alone = run.validation[run.validation["labels"].isin(names)][["fname", "labels"]]
    alone = alone.assign(**{name: alone["labels"].eq(name).astype(float) for name in names})
    alone.to_csv(few / "validation_scores.csv", index=False)
    assert Run(few).summary()["LWLRAP"] == 1 > run.summary()["LWLRAP"]
    assert runs.best_run().folder == attached
    attached.parent.rename(tmp_path / "working/runs/mini-2019-abc")  # runs on synthetic sounds come last
    assert runs.best_run().folder == few
