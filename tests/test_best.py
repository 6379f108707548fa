"""`best`: no stage of a fold's model has seen a clip of the fold, and stopped training resumes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import best, inference, launch, mel_cache, models, train
from utils.config import QUICK
from utils.dataset import MelDataset
from utils.run_folder import Run
from utils.runs import find_runs
from utils.workspace import ROOT


@pytest.fixture(scope="module")
def sets(competition, cache, tmp_path_factory):
    """A few curated and noisy clips of the mini set; some noisy ones have names of curated ones."""
    curated = MelDataset(cache, competition.curated.iloc[::4].reset_index(drop=True), competition.classes)
    table = competition.noisy.iloc[::3].reset_index(drop=True)
    table.loc[:3, "fname"] = curated.table["fname"][:4].to_numpy()
    folder = tmp_path_factory.mktemp("noisy")
    return curated, MelDataset(mel_cache.build(table, folder, "noisy", QUICK.mel, n_jobs=1), table, competition.classes)


@pytest.fixture(autouse=True)
def small_best(monkeypatch):
    """`best` with few channels and steps, which agrees with enough noisy clips to be tested."""
    entry = models.MODELS["best"]
    config = replace(entry.config("quick"), max_steps=12, test_crops=2)
    small = replace(entry, presets={"quick": ({"width": 4, "stem": 4}, config)})
    monkeypatch.setitem(models.MODELS, "best", small)


@pytest.fixture(autouse=True)
def one_thread():
    """Train in this process, where monkeypatches apply."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lenient(monkeypatch):
    """Let every third noisy clip agree with any model, which must be that of a first stage."""

    def agreeing(run, noisy):
        assert run.name.endswith(best.STAGES[0])
        return np.arange(0, len(noisy), 3)

    monkeypatch.setattr(best, "agreeing", agreeing)


def stages(folder):
    return {path.parent.name: Run(path.parent) for path in folder.glob("*/settings.json")}


@pytest.mark.usefixtures("lenient")
def test_no_stage_of_a_fold_has_seen_its_clips_and_every_clip_is_scored_out_of_fold(sets, tmp_path):
    curated, noisy = sets
    run = best.fit(curated, noisy, QUICK, tmp_path / "best")
    assert list(run.record["folds"]) == [f"fold{number}" for number in range(5)]
    made = stages(run.folder)
    assert len(made) == 10
    scored = []
    for name in run.record["folds"]:
        held_out = set(made[name].validation["fname"])
        scored += held_out
        first = made[f"{name}{best.STAGES[0]}"]
        assert held_out == set(first.validation["fname"])
        assert set(first.train_clips["fname"]) == set(curated.table["fname"]) - held_out
        joined = [*first.train_clips["fname"], *("noisy/" + noisy.table["fname"][::3])]  # prefixed: names may repeat
        assert list(made[name].train_clips["fname"]) == joined
        rows = run.validation.set_index("fname").loc[made[name].validation["fname"], run.classes]
        assert np.array_equal(rows.to_numpy(), made[name].scores)
    assert sorted(scored) == sorted(curated.table["fname"])
    assert list(run.validation["fname"]) == list(curated.table["fname"])
    history = best.histories(run)["fold0"]  # of both stages
    assert list(history["epoch"]) == list(range(1, len(history) + 1))
    assert history["steps"].is_monotonic_increasing
    assert list(history["stage"].unique()) == [1, 2]
    table = best.summary(run)
    assert (table["curated clips"].iloc[0], table["noisy clips"].iloc[0]) == (len(curated) - 12, 8)


def test_folds_trained_in_parallel_give_the_same_scores(sets, tmp_path, capsys):
    here = best.fit(*sets, QUICK, tmp_path / "here")
    torch.set_num_threads(2)
    there = best.fit(*sets, QUICK, tmp_path / "there")
    assert "10 trainings, 2 at once: 100%" in capsys.readouterr().out
    assert np.array_equal(here.scores, there.scores)
    keys = [{name: made.record["fingerprint"] for name, made in stages(run.folder).items()} for run in (here, there)]
    assert keys[0] == keys[1]


def test_the_first_parallel_training_that_fails_ends_the_others(sets, tmp_path):
    torch.set_num_threads(2)
    model = models.build({"name": "DeepCNN", "n_classes": 12, "width": 2, "stem": 2})
    config = models.MODELS["best"].config("quick")
    parts = sets[0].subset(np.arange(40)), sets[0].subset(np.arange(40, 60))
    configs = replace(config, min_steps=10**6, max_steps=10**6), replace(config, learning_rate=1e30), config
    long, failing, later = ((model, *parts, each, tmp_path / str(i), str(i)) for i, each in enumerate(configs))
    others = set(multiprocessing.active_children())  # of earlier tests
    with pytest.raises(FloatingPointError, match="1: the loss is"):
        launch.train_in_parallel(train.fit, [[long], [failing, later]], 10**6, sets[0].device)
    assert not list(tmp_path.glob("*/settings.json")) + list(tmp_path.glob("2*"))
    assert set(multiprocessing.active_children()) <= others


def killed(_, bar):
    os.kill(os.getpid(), signal.SIGKILL)


def out_of_memory(_, bar):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def too_much(_, bar):
    torch.empty(2**60, dtype=torch.uint8)


KILLED = r"was killed, probably \(unless an error is shown above\) for"
MEMORY = [(killed, KILLED), (out_of_memory, "stopped for"), (too_much, "stopped for")]


@pytest.mark.parametrize("train_one, what", MEMORY)
def test_a_training_that_runs_out_of_memory_is_explained(train_one, what):
    torch.set_num_threads(2)
    with pytest.raises(MemoryError, match=f"{what} lack of memory: OMP_NUM_THREADS=1 trains one at a time"):
        launch.train_in_parallel(train_one, [[(1,)], [(2,)]], 2, torch.device("cpu"))


SLEEPERS = """
import os, time
import torch
from utils import launch

def sleep(folder, bar):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(600)

if __name__ == "__main__":
    torch.set_num_threads(2)
    launch.train_in_parallel(sleep, [[(os.environ["TMP"],)]] * 3, 3, torch.device("cpu"))
"""


def test_processes_end_if_their_parent_is_killed(tmp_path, monkeypatch):
    script, started = tmp_path / "sleepers.py", tmp_path / "started"
    script.write_text(SLEEPERS)
    started.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("TMP", str(started))
    with subprocess.Popen([sys.executable, script]) as parent:
        while len(list(started.iterdir())) < 2:
            assert parent.poll() is None
            time.sleep(0.1)
        parent.kill()
    processes = [int(path.name) for path in started.iterdir()]
    deadline = time.monotonic() + 60
    while any(map(runs, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(process):
    status = Path(f"/proc/{process}/status")  # a process that has ended may remain as a zombie
    return status.exists() and "State:\tZ" not in status.read_text()


def test_the_folds_are_blended_by_their_geometric_mean(sets, tmp_path):
    curated, _ = sets
    config = replace(models.MODELS["best"].config("quick"), mix_probability=0.25)
    run = best.fit(curated, None, QUICK, tmp_path / "best", config, width=3)
    assert len(stages(run.folder)) == 5
    assert run.config.mix_probability == 0.25 and {model.config["width"] for model in run.models()} == {3}
    few = curated.subset(np.arange(9))
    each = [inference.predict_scores(model, few, run.config) for model in run.models()]
    assert np.allclose(inference.score_run(run, few), np.exp(np.mean(np.log(each), axis=0)), atol=1e-5)


@pytest.mark.usefixtures("lenient")
def test_stopped_between_two_trainings_it_resumes_to_the_same_scores(sets, tmp_path, monkeypatch):
    curated, noisy = sets
    whole = best.fit(curated, noisy, QUICK, tmp_path / "whole")
    fit, calls = train.fit, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(train, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        best.fit(curated, noisy, QUICK, tmp_path / "best")
    assert not (tmp_path / "best" / "settings.json").exists()  # an incomplete run is not found
    steps, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **k: (steps.append(1), step(*a, **k))[1])
    again = best.fit(curated, noisy, QUICK, tmp_path / "best")
    assert len(steps) == 5 * 12 - (12 + 4)  # both stages of the first fold and one of the second had finished
    first, second = Run(tmp_path / "best/fold0-curated").models()[0].state_dict(), calls[1][0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.array_equal(again.scores, whole.scores)


def test_a_finished_best_is_found_until_one_of_its_folds_is_retrained(sets, tmp_path, monkeypatch):
    curated, _ = sets
    done = best.fit(curated, None, QUICK, tmp_path / "best")
    fit = train.fit

    def stopped(*arguments):
        if arguments[4].name == "fold1":
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(train, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        best.fit(curated, None, QUICK, tmp_path / "best")
    assert find_runs(tmp_path)[0].record == done.record  # the first fold was finished and is kept
    with pytest.raises(KeyboardInterrupt):
        best.fit(curated.subset(np.arange(50)), None, QUICK, tmp_path / "best")
    with pytest.raises(ValueError, match="fold0 has been retrained since: run 06_beyond_the_paper again"):
        _ = Run(tmp_path / "best").record


def test_other_files_are_not_overwritten(sets, tmp_path):
    for name in ("history.csv", "settings.json"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files than a run"):
        best.fit(*sets, QUICK, tmp_path)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}


def test_noisy_clips_agree_if_their_labels_rank_above_all_other_classes(sets, tmp_path, monkeypatch):
    _, noisy = sets
    scores = np.random.default_rng(0).random((len(noisy), 12)) * 0.5
    targets = noisy.targets.numpy() > 0
    right = np.arange(len(noisy)) % 2 == 0
    scores[targets & right[:, None]] += 0.5
    scores[~right, 0], scores[~right, 1] = 0.9, 0.9  # ties do not count
    monkeypatch.setattr(inference, "predict_scores", lambda *_: scores)
    monkeypatch.setattr(Run, "models", lambda self: [None])
    monkeypatch.setattr(Run, "config", QUICK)
    assert set(best.agreeing(Run(tmp_path), noisy)) == set(np.flatnonzero(right))
    scores[:] = scores[::-1].copy()  # as on another machine: the saved result is used
    assert set(best.agreeing(Run(tmp_path), noisy)) == set(np.flatnonzero(right))


def test_noisy_clips_of_a_held_out_group_are_left_out(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(best, "agreeing", lambda run, noisy: np.arange(len(noisy)))
    curated, noisy = (part.subset(np.arange(len(part))) for part in sets)
    curated.table["group"] = [f"g{row % 15}" for row in range(len(curated))]
    noisy.table["group"] = ["", "new", *(f"g{row % 15}" for row in range(2, len(noisy)))]
    run = best.fit(curated, noisy, QUICK, tmp_path / "best")
    groups = {f"noisy/{fname}": group for fname, group in zip(noisy.table["fname"], noisy.table["group"])}
    groups |= dict(zip(curated.table["fname"], curated.table["group"]))
    for fold in run.folds():
        held_out = {groups[fname] for fname in fold.validation["fname"]}
        trained = [groups[fname] for fname in fold.train_clips["fname"]]
        assert held_out.isdisjoint(trained)
        assert {"", "new"} <= set(trained)


def test_the_ablation_ends_with_the_recipe(sets, tmp_path, competition):
    table = best.ablation(sets[0], QUICK, tmp_path)
    assert list(table.index) == list(best.ABLATION)
    assert table["LWLRAP"].between(table["low"], table["high"]).all()
    assert Run(tmp_path / "+ resized").config.optimizer == "adam"
    assert Run(tmp_path / "+ Muon").config.filter_probability == 0
    last, recipe = Run(tmp_path / table.index[-1]).config, models.MODELS["best"].config("quick")
    assert replace(last, max_steps=None, min_steps=1) == replace(recipe, max_steps=None)
