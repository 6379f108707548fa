"""On Kaggle and Colab, the packages that the kit needs and the place lacks: installed, with all that is there left as it is."""

import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from importlib.util import find_spec

from .config import COLAB, KAGGLE_WORKING

# Modules, and what installs them where that has another name.
NEEDED = ("torch", "torchvision", "timm", "librosa", "numpy", "pandas", "sklearn", "matplotlib", "tqdm", "joblib", "safetensors", "scipy")
NEEDED += ("soundfile", "huggingface_hub")
INSTALLED_AS = {"sklearn": "scikit-learn"}


def install_missing() -> None:
    """On Kaggle and Colab, install what is missing. Raises ModuleNotFoundError, with the remedy, if that fails, as it does offline."""
    missing = [INSTALLED_AS.get(name, name) for name in NEEDED if find_spec(name) is None]
    if not missing or not (KAGGLE_WORKING.is_dir() or COLAB.is_dir()):
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as there:
        there.writelines(f"{package.name}=={package.version}\n" for package in distributions() if package.name)
        there.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", there.name, *missing]
        if subprocess.run(command).returncode:
            raise ModuleNotFoundError(f"{', '.join(missing)}: not here, and pip could not install it. Turn the internet on, or see above.")
