"""Tests and notebooks run on the mini set, on the CPU's preset, in a work folder of their own."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "work" / "tests"

# Set here, before any kernel starts: the notebooks that nbval runs take them over.
os.environ.pop("FAT_DATA", None)
os.environ.pop("FAT_VGG19_WEIGHTS", None)
os.environ["FAT_WORK"] = str(WORK)
os.environ["FAT_SUBMISSIONS"] = str(WORK / "submissions")
os.environ["FAT_PRESET"] = "quick"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def competition():
    from utils import data, mini

    return data.Competition(mini.make(WORK / "mini"))


@pytest.fixture(scope="session")
def cache(competition):
    from utils import config, mel

    return mel.build_cache(competition.curated, WORK / "cache", "curated", config.MelSettings())
