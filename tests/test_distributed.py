"""Two processes on this machine, over gloo, against one."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from utils import distributed, setup
from utils.config import QUICK
from utils.run_folder import Run

SCRIPT = """
import os, sys
from dataclasses import replace
from pathlib import Path

import torch

from utils import distributed, mel, models, setup, train
from utils.dataset import load_split
from utils.config import QUICK

train._precision = lambda device: torch.float32
common = dict(learning_rate=1e-4, schedule="constant")  # Adam at its full rate makes a visible difference of any rounding
variants = {
    "random": dict(epochs=3, batch_size=37, mixup=True, masking=True),
    "uneven": dict(epochs=1, batch_size=17, crop="start"),
}
with distributed.processes():
    kit = setup()
    table, classes = kit.competition.curated, kit.competition.classes
    clips = load_split(mel.load_cache(table, kit.cache, "curated", kit.preset.mel), table, classes, kit.preset, kit.device)
    for name, changes in variants.items():
        torch.manual_seed(0)
        model = models.DeepCNN(len(classes), width=8, dropout=0.0)
        train.fit(model, *clips, replace(QUICK.deep_cnn, **common, **changes), Path(sys.argv[1]) / name, name)
"""


def test_two_processes_with_half_the_batch_train_as_one_with_the_whole(cache, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, how in (("one", []), ("two", torchrun)):
        command = [sys.executable, *how, str(tmp_path / "script.py"), str(tmp_path / name)]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(distributed.ROOT)}, check=True)
    for variant in ("random", "uneven"):
        one, two = (Run(tmp_path / name / variant) for name in ("one", "two"))
        assert (one.record["processes"], two.record["processes"]) == (1, 2)
        assert np.allclose(one.history["loss"], two.history["loss"], rtol=2e-4)
        assert one.validation["fname"].equals(two.validation["fname"])
        assert np.allclose(one.scores, two.scores, atol=1e-3)


def test_launch_reads_the_run_that_torchrun_trained(capfd, monkeypatch, tmp_path):
    kit = replace(setup(), folder=tmp_path)
    settings = replace(QUICK.deep_cnn, epochs=1, max_steps=2, windows=1)
    run = distributed.launch("deep_cnn", kit, settings, processes=2)
    assert run.training == settings
    assert run.record["processes"] == 2
    assert len(run.validation) == len(kit.competition.curated) / 5
    assert capfd.readouterr().out.count("deep_cnn-quick") == 1  # the first process speaks, and no other
    with pytest.raises(ChildProcessError, match="torchrun of no_such_model ended with code"):
        distributed.launch("no_such_model", kit, settings, processes=1)
