"""Tests and notebooks run on the mini set, with the preset `quick`, in their own work folder.

What is slow is made once per worker, here: the mini set, its cache, and one trained run.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "work" / "tests"

# Set before the kit or huggingface_hub is imported and before any kernel starts: all of them read these.
os.environ["FAT_WORK"] = str(WORK)
os.environ["FAT_SUBMISSIONS"] = str(WORK / "submissions")
os.environ["FAT_PRESET"] = "quick"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = str(WORK / "no_weights")
os.environ.pop("FAT_VGG19_WEIGHTS", None)
os.environ.pop("FAT_DROP_UNREADABLE", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # two workers of two threads each would compete for two cores

import torch  # noqa: E402

from utils import config, data, dataset, mel_cache, mini, models, train  # noqa: E402

os.environ["FAT_DATA"] = str(mini.make_mini_set(WORK / mini.NAME))


class Scheduling(LoadFileScheduling):
    """One worker runs the notebooks, in order; the test files are distributed."""

    # A private method: pytest-xdist 3 has no public one to group tests by path.
    def _split_scope(self, nodeid):
        return "notebooks" if nodeid.startswith("notebooks/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.suffix != ".ipynb")  # the slowest start first


@pytest.fixture(scope="session")
def competition():
    return data.Competition(os.environ["FAT_DATA"])


@pytest.fixture(scope="session")
def cache(competition):
    return mel_cache.build(competition.curated, WORK / "cache", "curated", config.MelConfig())


@pytest.fixture(scope="session")
def sets(competition, cache):
    """Training and validation set, on the CPU."""
    return dataset.load_split(cache, competition.curated, competition.classes, config.QUICK, "cpu")


@pytest.fixture(scope="session")
def model():
    """An untrained Deep CNN, small enough to learn the mini set in seconds."""
    torch.manual_seed(0)
    return models.DeepCNN(12, width=8, stem=8)


@pytest.fixture(scope="session")
def run(model, sets, tmp_path_factory):
    """That model, trained, in its own work folder; read it, or change a copy."""
    settings = replace(models.MODELS["deep_cnn"].config("quick"), epochs=16, min_steps=1)
    return train.fit(model, *sets, settings, tmp_path_factory.mktemp("work") / "runs/mini/deep_cnn", "Deep CNN")


@pytest.fixture
def refused(capsys):
    """A function that calls `main` with arguments that it refuses, and returns what it says."""

    def call(main, *arguments):
        with pytest.raises(SystemExit):
            main([str(argument) for argument in arguments])
        return capsys.readouterr().err

    return call
