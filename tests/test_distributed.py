"""Two processes on this machine, over gloo, against one."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils import distributed, inference, launch, mel_cache, models
from utils.config import TrainingConfig
from utils.dataset import MelDataset
from utils.run_folder import Run
from utils.workspace import ROOT

# On a CPU, batch normalization uses each process's own batch, so the compared networks have group normalization.
SCRIPT = """
import gc
import sys
from pathlib import Path

import torch
from torch import nn

from utils import config, data, dataset, distributed, inference, mel_cache, models, train

inference.autocast_dtype = lambda device: torch.float32
# At the usual, higher learning rate, Adam makes rounding errors visible.
common = dict(optimizer="muon", schedule="cosine", activation="sigmoid", test_crops=3, learning_rate=1e-4)
random = config.TrainingConfig(
    3, batch_size=37, crop="random", **dict.fromkeys(config.NO_AUGMENTATION, 0.5), **common
)
uneven = config.TrainingConfig(1, batch_size=17, **common)


def fit(folder, training_config):
    torch.manual_seed(0)
    model = models.DeepCNN(len(competition.classes), width=8, stem=8, dropout=0.0)
    for part in list(model.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                setattr(part, name, nn.GroupNorm(2, layer.num_features))
    train.fit(model, *sets, training_config, folder, folder.name)


def stop(self, number, *rest):
    if number == 2:
        raise KeyboardInterrupt
    return epoch(self, number, *rest)


gc.disable()  # it would come when it wants
competition, out, epoch = data.Competition(sys.argv[1]), Path(sys.argv[3]), train.Trainer.epoch
with distributed.process_group():
    cache = mel_cache.Cache(sys.argv[2])
    sets = dataset.load_split(cache, competition.curated.head(130), competition.classes, config.QUICK, "cpu")
    if distributed.world_size() == 1:
        fit(out / "one" / "random", random)
        fit(out / "one" / "uneven", uneven)
        train.Trainer.epoch = stop
        try:
            fit(out / "two" / "random", random)
        except KeyboardInterrupt:
            pass
    else:
        fit(out / "two" / "uneven", uneven)
        fit(out / "two" / "random", random)
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
assert not any("gloo" in name for name in threads), threads  # they may crash an exit
"""


def test_two_processes_train_as_one_and_resume_its_checkpoint(competition, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc_per_node=2"]
    printed = []
    for how in ([], torchrun):
        command = [sys.executable, *how, tmp_path / "script.py", competition.folder, cache.folder, tmp_path]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        assert "broadcast_buffers" not in result.stderr  # which torch warns of
        printed.append(result.stdout)
    assert printed[1].count("uneven: training 104 clips") == 1  # only the first process prints
    assert "random: training 104 clips of a cache of 10 MB, on the CPU, resuming after epoch 1" in printed[1]
    for name in ("random", "uneven"):
        one, two = (Run(tmp_path / number / name) for number in ("one", "two"))
        assert (one.record["processes"], two.record["processes"]) == (1, 2)
        assert np.allclose(one.history["loss"], two.history["loss"], rtol=2e-4)
        assert one.validation["fname"].equals(two.validation["fname"])
        assert np.allclose(one.scores, two.scores, atol=1e-3)


SMALL = TrainingConfig(epochs=1, max_steps=2, batch_size=8, optimizer="muon", learning_rate=2e-3)


def test_several_processes_train_what_launch_is_given(sets, cache, tmp_path, capfd):
    """Clips of two caches, layers without gradients, and classes that a CSV reader may take for missing values."""
    odd = dict(zip(sets[0].classes, ["None", "NA", "null"]))
    theirs = shutil.copytree(cache.folder, tmp_path / "of-other-sounds")
    np.save(theirs / "frames.npy", cache.frames[::-1])

    def clips(cache, part, rows):
        labels = part.table["labels"][rows].map(lambda some: ",".join(odd.get(name, name) for name in some.split(",")))
        table = part.table[["fname"]][rows].assign(labels=labels)
        return MelDataset(cache, table, [odd.get(name, name) for name in part.classes])

    others = clips(mel_cache.Cache(theirs), sets[1], slice(20))
    others.table["fname"] = "other-" + others.table["fname"]
    train_set = clips(cache, sets[0], slice(40)).join(others)
    validation_set = others.subset(np.arange(0)).join(clips(cache, sets[1], slice(20, 32)))
    rows = torch.randperm(60)
    offsets = torch.full_like(rows, -5)
    parts = [clips(cache, sets[0], slice(40)), others]
    expected = torch.cat([part.crops(torch.arange(len(part)), offsets[: len(part)], 400) for part in parts])
    assert torch.equal(train_set.crops(rows, offsets, 400), expected[rows])
    assert torch.equal(train_set.targets, torch.cat([part.targets for part in parts]))
    model = models.DeepCNN(12, width=4, stem=4, dropout=0.5)
    model.pretrained = True
    model.stem.requires_grad_(False)
    run = launch.fit(model, train_set, validation_set, SMALL, tmp_path / "run", "Small", processes=2)
    assert run.config == SMALL
    assert run.pretrained
    assert run.record["model"] == model.config
    assert (run.record["title"], run.record["processes"]) == ("Small", 2)
    assert run.classes[:3] == ["None", "NA", "null"]
    assert list(run.train_clips["fname"]) == list(train_set.table["fname"])
    assert list(run.validation["fname"]) == list(validation_set.table["fname"])
    assert np.array_equal(run.targets, validation_set.targets.numpy())
    [trained] = run.models()
    assert trained.blocks[0][0].weight.shape == (4, 4, 3, 3)
    assert torch.equal(trained.stem[0].weight, model.stem[0].weight)
    # The scores are those of the saved weights, though each process had its own batches and statistics.
    assert np.allclose(inference.predict_scores(trained, validation_set, SMALL), run.scores, atol=1e-3)
    assert capfd.readouterr().out.count("Small: training 60 clips") == 1


def test_a_model_with_frozen_layers_trains_in_one_process(sets, tmp_path):
    vgg19 = models.VGG19(12, width=2, downsample=4)
    vgg19.freeze()
    few = [part.subset(np.arange(8)) for part in sets]
    run = launch.fit(vgg19, *few, SMALL, tmp_path / "run", "VGG19", processes=2)
    assert run.record["processes"] == 1
    kept = run.models()[0].features[0].weight
    assert kept.equal(vgg19.features[0].weight)


SECOND_PROCESS_FAILS = """
import os
if os.environ.get("RANK") == "1":
    import torch
    def step(self, *_, **__):
        raise RuntimeError("the second process fails")
    torch.optim.AdamW.step = step
"""


def test_a_failing_process_ends_the_others_and_its_error_is_shown(sets, tmp_path, monkeypatch, capfd):
    (tmp_path / "sitecustomize.py").write_text(SECOND_PROCESS_FAILS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ChildProcessError, match="Small: torchrun exited with code 1: see its output above"):
        launch.fit(models.DeepCNN(12, width=2, stem=2), *sets, SMALL, tmp_path / "run", "Small", processes=2)
    assert "RuntimeError: the second process fails" in capfd.readouterr().out
    assert not (tmp_path / "run").exists()


def test_too_many_processes_for_a_batch_are_rejected(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 12)
    few = [part.subset(np.arange(33)) for part in sets]  # three batches of 11
    config = replace(SMALL, batch_size=16)
    with pytest.raises(ValueError, match="12 processes cannot share a batch of 11 clips: raise batch_size"):
        launch.fit(models.DeepCNN(12, width=2), *few, config, tmp_path / "run", "Small")


def test_machines_that_do_not_share_the_checkpoint_do_not_train(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "all_reduce", lambda sums: sums + torch.tensor([3, 9]))  # another resumes after 3
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    few = [part.subset(np.arange(8)) for part in sets]
    with pytest.raises(ValueError, match="run is not the same on all machines: let them share the work folder"):
        launch.fit(models.DeepCNN(12, width=2), *few, SMALL, tmp_path / "run", "Small")


def test_the_command_line_trains_a_model(competition, cache, tmp_path, monkeypatch, capsys, refused):
    monkeypatch.setenv("FAT_WORK", str(tmp_path))
    (tmp_path / "cache").symlink_to(cache.folder.parent)
    changes = '{"max_steps": 1, "test_crops": 1, "batch_size": 8}'
    launch.main(["deep_cnn", "--data", str(competition.folder), "--config", changes, "--name", "short"])
    printed = capsys.readouterr().out
    assert "invalid choice: 'fast'" in refused(launch.main, "deep_cnn", "--preset", "fast")
    written = tmp_path / printed.splitlines()[-1].removeprefix("written: ")
    assert written.name == "short-quick"
    assert (Run(written).config.max_steps, Run(written).config.batch_size) == (1, 8)
    no_weights = "No ImageNet weights: the hub cannot be reached and FAT_VGG19_WEIGHTS is not set."
    assert no_weights in refused(launch.main, "vgg19_transfer", "--data", competition.folder)
    assert "train_curated.csv" in refused(launch.main, "deep_cnn", "--data", tmp_path)
    changes = '{"max_steps": 3, "learning_rate": 1e30}'
    assert "lower the learning rate" in refused(launch.main, "deep_cnn", "--config", changes)
    for changes in ('{"learning_rte": 1}', '{"batch_size": "8"}', '{"learning_rate": -1}', "[1]"):
        assert "error: argument --config: " in refused(launch.main, "deep_cnn", "--config", changes)
    assert "--config: give an object, such as" in refused(launch.main, "deep_cnn", "--config", "[1]")
    unknown = refused(launch.main, "deep_cnn", "--config", '{"width": 48}')
    assert "--config: width is not one of epochs, min_steps, max_steps, batch_size" in unknown
    for name in ("best", "best_lr", "../deep_cnn"):
        assert "error: argument --name: use letters" in refused(launch.main, "deep_cnn", "--name", name)
