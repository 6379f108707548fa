"""Malformed run folders, and pickles, which could run any code."""

import json
import os
import pickle
import shutil
from copy import deepcopy
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from utils import baselines, checkpoint, config, data, inference, models, train
from utils.config import MelConfig, TrainingConfig
from utils.mel_cache import Cache
from utils.run_folder import Run, save_run
from utils.runs import common_clips, find_runs

TINY = TrainingConfig(epochs=1, max_steps=1)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run, to corrupt."""
    return Run(shutil.copytree(run.folder, tmp_path / "runs" / "copy"))


def weights(change):
    def change_it(folder):
        file = folder / "weights.safetensors"
        tensors = safetensors.torch.load_file(file)
        change(tensors)
        safetensors.torch.save_file(tensors, file)

    return change_it


def settings(*path, value):
    def change_it(folder):
        file = folder / "settings.json"
        record = json.loads(file.read_text())
        inner = record
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        file.write_text(json.dumps(record))

    return change_it


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


MALFORMED = {
    "a setting of another version": (
        settings("config", "louder", value=0.5),
        r"settings unknown here .*'louder'\): retrain it",
    ),
    "a shape": (
        weights(lambda w: w.update({"dense.bias": torch.zeros(13)})),
        r"not a run of this kit .*size mismatch for dense\.bias: .*\[13\].*\[12\]",
    ),
    "a tensor less": (weights(lambda w: w.pop("dense.bias")), r"Missing key.*dense\.bias"),
    "a tensor more": (weights(lambda w: w.update(extra=torch.zeros(1))), r"Unexpected key.*extra"),
    "another width": (settings("model", "width", value=3), r"size mismatch for"),
    "a width no memory holds": (settings("model", "width", value=10**7), r"size mismatch for"),
    "an unknown model": (settings("model", "name", value="os.system"), r"'os\.system' is not a network of this kit"),
    "an unknown option": (settings("model", "run", value="x"), r"is not a run of this kit .*unexpected keyword"),
    "another order of classes": (
        lambda folder: settings("classes", value=Run(folder).classes[::-1])(folder),
        r"trained on other classes, or in another order",
    ),
    "fewer classes": (
        lambda folder: settings("classes", value=Run(folder).classes[:5])(folder),
        r"trained on other classes, or in another order",
    ),
    "other mel settings": (
        settings("mel", "fmax", value=8000.0),
        r"was trained on MelConfig.*rebuild the cache with the run's settings",
    ),
    "settings that are no json": (written("settings.json", b"{"), r"its settings cannot be read"),
    "settings that are missing": (lambda folder: (folder / "settings.json").unlink(), r"its settings cannot be read"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), r"is not a run of this kit"),
    "a header of 2**60 bytes": (
        written("weights.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
        r"is not a run of this kit .*[Hh]eader",
    ),
    "weights cut off": (lambda folder: os.truncate(folder / "weights.safetensors", 5000), "is not a run of this kit"),
    "a pickle for weights": (
        written("weights.safetensors", pickle.dumps({"dense.bias": [0.0]})),
        r"is not a run of this kit",
    ),
    "another version's": (settings("format", value=1), r"was made by another version of this kit: train it again"),
    "from before there were formats": (
        lambda folder: (folder / "settings.json").write_text('{"title": "Deep CNN", "training": {"epochs": 1}}'),
        r"was made by another version of this kit: train it again",
    ),
    "weights from elsewhere": (
        settings("model", value={"name": "VGG19", "n_classes": 12, "weights": "/etc/passwd"}),
        r"is not a run of this kit \(a config must not have weights to load",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_run_is_rejected_with_what_differs(name, copy, sets):
    change, sentence = MALFORMED[name]
    change(copy.folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        inference.score_run(Run(copy.folder), sets[1])
    assert "\n" not in str(caught.value)


class Evil:
    """Loading its pickle calls a function."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_no_pickle_is_ever_loaded(run, model, sets, cache, tmp_path, monkeypatch):
    torch.save({"key": Evil()}, tmp_path / "again.checkpoint")
    np.save(tmp_path / "frames.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    shutil.copytree(cache.folder, tmp_path / "cache")
    shutil.copy(tmp_path / "frames.npy", tmp_path / "cache")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("a pickle was loaded"))
    with pytest.raises(ValueError, match=r"again\.checkpoint is not a checkpoint of this kit: remove it"):
        train.fit(model, *sets, TINY, tmp_path / "again", "Deep CNN")
    with pytest.raises(ValueError, match="Python objects in dtype"):
        Cache(tmp_path / "cache")
    assert np.allclose(inference.score_run(find_runs(run.folder.parent)[0], sets[1]), run.scores, atol=1e-5)


def test_a_clip_cannot_be_in_both_sets_which_are_saved_with_the_run(run, model, sets, tmp_path):
    kept = pd.read_csv(run.folder / "train_clips.csv")
    assert list(kept["fname"]) == list(sets[0].table["fname"])
    assert list(run.validation["fname"]) == list(sets[1].table["fname"])
    with pytest.raises(ValueError, match="is in both the training and the validation set"):
        train.fit(model, sets[0], sets[0].subset(np.arange(3)), TINY, tmp_path / "run", "Deep CNN")
    with pytest.raises(ValueError, match="is in both the training and the validation set"):
        baselines.fit("knn", sets[0], sets[0].subset(np.arange(3)), tmp_path / "run")


def test_a_network_that_could_not_be_rebuilt_is_not_trained(model, sets, tmp_path):
    other = deepcopy(model)
    other.config = model.config | {"name": "Mine"}
    with pytest.raises(ValueError, match="'Mine' is not a network of this kit"):
        train.fit(other, *sets, TINY, tmp_path / "run", "Deep CNN")


def test_find_runs_puts_the_best_first(copy, model, sets, capsys):
    train.fit(model, *sets, TINY, copy.folder.with_name("short"), "Deep CNN")
    (copy.folder.with_name(f"other.{32 * '0'}.part")).mkdir()
    capsys.readouterr()
    assert [found.name for found in find_runs(copy.folder.parent)] == ["copy", "short"]
    assert capsys.readouterr().out == ""
    with pytest.raises(FileNotFoundError, match="run 03_cnn first"):
        find_runs(copy.folder / "nowhere")


def test_runs_are_ranked_on_the_clips_they_share(copy, run, capsys):
    other = shutil.copytree(run.folder, copy.folder.with_name("other"))
    common_clips(find_runs(copy.folder.parent))
    assert capsys.readouterr().out == ""
    right = run.scores.argmax(axis=1) == data.first_label(run.validation, run.classes)
    best = run.validation[right]  # the other run has only the clips that this one gets right
    best.to_csv(other / "validation_scores.csv", index=False)
    runs = find_runs(copy.folder.parent)
    common = common_clips(runs)
    compared = f"These runs are compared on the {len(best)} validation clips that all of them were scored on.\n"
    assert capsys.readouterr().out == compared  # and not that these are few
    assert runs[0].summary(common)["LWLRAP"] == runs[1].summary(common)["LWLRAP"] > run.summary()["LWLRAP"]
    run.validation[~right].to_csv(other / "validation_scores.csv", index=False)
    best.to_csv(copy.folder / "validation_scores.csv", index=False)
    assert common_clips(find_runs(copy.folder.parent)) is None
    assert "share only 0 validation clips" in capsys.readouterr().out
    for name, rows in (("copy", slice(25)), ("other", slice(20, 45))):
        run.validation[rows].to_csv(copy.folder.with_name(name) / "validation_scores.csv", index=False)
    find_runs(copy.folder.parent)
    assert "share only 5 validation clips" in capsys.readouterr().out
    right = run.validation.assign(**dict(zip(run.classes, run.targets.T)))
    wrong = right.assign(**dict.fromkeys(run.classes, 0.5))
    pd.concat([right[:24], wrong[24:]]).to_csv(copy.folder / "validation_scores.csv", index=False)
    pd.concat([wrong[:1], right[1:24]]).to_csv(other / "validation_scores.csv", index=False)
    assert Run(other).summary()["LWLRAP"] > Run(copy.folder).summary()["LWLRAP"]  # each on its own clips
    assert [found.name for found in find_runs(copy.folder.parent)] == ["copy", "other"]


def test_attached_runs_on_the_same_data_are_found_whatever_the_name_of_its_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "KAGGLE_INPUT", tmp_path / "input")
    uploaded = tmp_path / "input/datasets/someone/freesound-tagging-kit/runs"
    shutil.copytree(run.folder, uploaded / "data-1a2b3c" / "at_home")
    shutil.copytree(run.folder, uploaded / "data-4d5e6f" / "on_other_data")
    assert [found.name for found in find_runs(tmp_path / "runs/freesound-audio-tagging-2019-1a2b3c")] == ["at_home"]


def test_the_scores_of_two_runs_are_paired_by_clip(copy, run):
    file = copy.folder / "validation_scores.csv"
    pd.read_csv(file)[::-1].to_csv(file, index=False)
    common = common_clips([run, Run(copy.folder)])
    assert all(map(np.array_equal, run.on(common), Run(copy.folder).on(common)))


def test_running_out_of_memory_is_no_fault_of_a_checkpoint(tmp_path, monkeypatch):
    saved = checkpoint.Checkpoint(tmp_path / "run", "key", {})
    saved.save([], 1.0, last=True)
    monkeypatch.setattr(torch, "load", lambda *_, **__: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="allocate memory"):
        saved.resume()


def test_clips_whose_labels_have_changed_are_not_compared(copy, run, capsys):
    other = shutil.copytree(run.folder, copy.folder.with_name("other"))
    relabeled = run.validation.assign(labels=[run.classes[0]] * 3 + list(run.validation["labels"][3:]))
    relabeled.to_csv(other / "validation_scores.csv", index=False)
    assert len(common_clips(find_runs(copy.folder.parent))) == len(run.validation) - 3
    assert f"compared on the {len(run.validation) - 3} validation clips" in capsys.readouterr().out


LOST = ["title", "classes", "its scores", "a class's scores", "its network", "an option of it", "its format"]


@pytest.mark.parametrize("lost", LOST)
def test_an_incomplete_run_is_skipped_with_a_message(copy, run, capsys, lost):
    partial = shutil.copytree(run.folder, copy.folder.with_name("partial"))
    sentence = ""
    if lost == "its scores":
        (partial / "validation_scores.csv").unlink()
        sentence = "partial/validation_scores.csv"
    elif lost == "its format":
        settings("format", value=1)(partial)
        sentence = "partial was made by another version of this kit: train it again"
    elif lost == "a class's scores":
        run.validation.drop(columns=run.classes[3]).to_csv(partial / "validation_scores.csv", index=False)
    elif lost == "its network":
        settings("model", "name", value="Mine")(partial)
    elif lost == "an option of it":
        settings("model", "squeeze", value=4)(partial)
    else:
        record = {name: value for name, value in run.record.items() if name != lost}
        (partial / "settings.json").write_text(json.dumps(record))
    assert [found.name for found in find_runs(copy.folder.parent)] == ["copy"]
    printed = capsys.readouterr().out
    assert f"Skipped {partial}" in printed and sentence in printed


def test_classes_and_clips_may_be_named_like_missing_values(tmp_path):
    classes, labels = ["NA", "None", "null"], ["None", "NA,null", "null", "NA"]
    model, history = models.DeepCNN(3, width=1), pd.DataFrame({"epoch": [1]})
    record = {"title": "x", "model": model.config, "pretrained": False, "config": asdict(TINY)}
    clips = pd.DataFrame({"fname": ["nan", "NA", "c.wav", "1e5"], "labels": labels})
    few = SimpleNamespace(table=clips, classes=classes, mel=MelConfig())
    save_run(tmp_path / "run", model, record, history, few, few, np.eye(4, 3))
    run = find_runs(tmp_path)[0]
    assert run.targets.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 0, 0]]
    assert np.array_equal(run.scores, np.eye(4, 3))
    assert list(run.validation["fname"]) == list(clips["fname"])


def test_a_run_records_whether_it_started_from_imagenet_weights(run, sets, tmp_path):
    vgg19 = models.VGG19(12, width=2, downsample=4)
    vgg19.pretrained = True
    vgg19.freeze()
    few = [part.subset(np.arange(4)) for part in sets]
    transfer = train.fit(vgg19, *few, replace(TINY, batch_size=4), tmp_path / "transfer", "VGG19, transfer")
    assert transfer.pretrained
    assert transfer.models()[0].pretrained  # so is a run that continues from it
    assert not run.pretrained
    assert np.allclose(inference.score_run(transfer, few[1]), transfer.scores, atol=1e-5)
