"""Run folders that are not what they say, and pickles, which could be anything."""

import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from utils import models, train
from utils.dataset import load_split
from utils.config import QUICK
from utils.mel import Cache
from utils.run_folder import Run, find_runs

SETTINGS = replace(QUICK.deep_cnn, epochs=2, batch_size=96)


@pytest.fixture(scope="module")
def clips(competition, cache):
    return load_split(cache, competition.curated, competition.classes, QUICK, "cpu")


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    return train.fit(models.DeepCNN(12, width=2), *clips, SETTINGS, tmp_path_factory.mktemp("runs") / "good", "Deep CNN")


def weights(change):
    def hostile(folder):
        file = folder / "weights.safetensors"
        tensors = safetensors.torch.load_file(file)
        change(tensors)
        safetensors.torch.save_file(tensors, file)

    return hostile


def settings(*path, value):
    def hostile(folder):
        file = folder / "settings.json"
        record = json.loads(file.read_text())
        inner = record
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        file.write_text(json.dumps(record))

    return hostile


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


HOSTILE = {
    "a shape": (weights(lambda w: w.update({"dense.bias": torch.zeros(13)})), r"dense\.bias is \(13,\) and should be \(12,\)"),
    "a tensor less": (weights(lambda w: w.pop("dense.bias")), r"dense\.bias is absent and should be \(12,\)"),
    "a tensor more": (weights(lambda w: w.update(extra=torch.zeros(1))), r"extra is \(1,\) and should be absent"),
    "another width": (settings("model", "width", value=3), r"does not fit .*'width': 3"),
    "a width no memory holds": (settings("model", "width", value=10**7), r"does not fit .*'width': 10000000"),
    "an unknown model": (settings("model", "name", value="os.system"), r"'os\.system' is not a model of this kit"),
    "an unknown option": (settings("model", "run", value="x"), r"is no run of this kit .*unexpected keyword"),
    "another order of classes": (lambda folder: settings("classes", value=Run(folder).classes[::-1])(folder), r"knows 12 classes, and not"),
    "fewer classes": (lambda folder: settings("classes", value=Run(folder).classes[:5])(folder), r"knows 5 classes, and not these 12"),
    "other mel settings": (settings("mel", "fmax", value=8000.0), r"was trained on MelConfig.*make the cache with its settings"),
    "settings that are no json": (written("settings.json", b"{"), r"its settings cannot be read"),
    "settings that are missing": (lambda folder: (folder / "settings.json").unlink(), r"its settings cannot be read"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), r"is no run of this kit"),
    "a header of 2**60 bytes": (
        written("weights.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
        r"is no run of this kit .*[Hh]eader",
    ),
    "weights cut off": (lambda folder: os.truncate(folder / "weights.safetensors", 5000), "is no run of this kit"),
    "a pickle for weights": (written("weights.safetensors", pickle.dumps({"dense.bias": [0.0]})), r"is no run of this kit"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run_is_refused_with_what_differs(name, run, clips, tmp_path):
    change, sentence = HOSTILE[name]
    shutil.copytree(run.folder, tmp_path / "run")
    change(tmp_path / "run")
    with pytest.raises(ValueError, match=sentence):
        train.score(Run(tmp_path / "run"), clips[1])


class Evil:
    """Pickled, it runs a function when it is read."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_no_pickle_is_ever_loaded(run, clips, cache, tmp_path, monkeypatch):
    torch.save({"key": Evil()}, tmp_path / "again.checkpoint")
    np.save(tmp_path / "frames.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    shutil.copytree(cache.folder, tmp_path / "cache")
    shutil.copy(tmp_path / "frames.npy", tmp_path / "cache")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("a pickle was loaded"))
    with pytest.raises(ValueError, match=r"again\.checkpoint is no checkpoint of this kit: remove it"):
        train.fit(models.DeepCNN(12, width=2), *clips, SETTINGS, tmp_path / "again", "Deep CNN")
    with pytest.raises(ValueError, match="Python objects in dtype"):
        Cache(tmp_path / "cache")
    assert np.allclose(train.score(find_runs(run.folder.parent)[0], clips[1]), run.scores, atol=1e-5)


def test_a_clip_cannot_be_on_both_sides_and_both_are_kept_with_the_run(run, clips, tmp_path):
    kept = pd.read_csv(run.folder / "training.csv")
    assert list(kept["fname"]) == list(clips[0].table["fname"])
    with pytest.raises(ValueError, match="is a training and a validation clip"):
        train.fit(models.DeepCNN(12, width=2), clips[0], clips[0].subset(np.arange(3)), SETTINGS, tmp_path / "run", "Deep CNN")
