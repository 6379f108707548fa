"""Tests and notebooks run on the mini set, on the CPU's preset, in a work folder of their own."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "work" / "tests"

# Set here, before anything of the kit or of the hub is imported and before any kernel starts: all of them take these over.
os.environ["FAT_WORK"] = str(WORK)
os.environ["FAT_SUBMISSIONS"] = str(WORK / "submissions")
os.environ["FAT_PRESET"] = "quick"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = str(WORK / "no_weights")
os.environ.pop("FAT_VGG19_WEIGHTS", None)

from utils import config, data, mel, mini  # noqa: E402

os.environ["FAT_DATA"] = str(mini.make_mini_set(WORK / mini.NAME))


@pytest.fixture(scope="session")
def competition():
    return data.Competition(os.environ["FAT_DATA"])


@pytest.fixture(scope="session")
def cache(competition):
    return mel.build_cache(competition.curated, WORK / "cache", "curated", config.MelConfig())
