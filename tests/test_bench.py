"""The benchmark runs, on few clips; that its baselines compute the same is asserted in it."""

from functools import partial

import torch

from tests import bench
from utils import models, setup


def test_every_row_of_the_benchmark_is_measured(competition, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)  # takes almost a minute
    monkeypatch.setattr(models, "VGG19", partial(models.VGG19, width=4))
    monkeypatch.setattr(bench, "rows", [])
    clips, folder = competition.curated.head(3), str(tmp_path)
    bench.preprocessing(clips, folder, 1)
    bench.memory(20, folder)
    bench.training(setup(), clips, folder, 1)
    bench.lwlrap(1)
    assert len({(row["what"], row["baseline"]) for row in bench.rows}) == 11
