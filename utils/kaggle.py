"""The notebooks and the kit, ready for Kaggle: python -m utils.kaggle USERNAME [--to FOLDER] [--weights FILE]

Each notebook becomes a folder with its kernel-metadata.json, and the kit a data set that they all attach, so that none of them
needs the internet, except 04_vgg19 if no weights are given here. Prints the commands to type.
"""

import argparse
import json
import shutil
from pathlib import Path

from .workspace import ROOT, short_path, work_folder

COMPETITION = "freesound-audio-tagging-2019"
KIT = "freesound-tagging-kit"
READS = {  # the notebooks whose output each one reads
    "01_eda": [],
    "02_preprocessing": [],
    "03_cnn": ["02_preprocessing"],
    "04_vgg19": ["02_preprocessing"],
    "05_related_work": ["02_preprocessing"],
    "07_evaluation": ["03_cnn", "04_vgg19", "05_related_work"],
    "08_submission": ["02_preprocessing", "03_cnn", "04_vgg19", "05_related_work"],
}
NEEDS_GPU = ("03_cnn", "04_vgg19", "08_submission")


def kernel_id(username: str, notebook: str) -> str:
    return f"{username}/{KIT}-{notebook.replace('_', '-')}"


def kernel_metadata(username: str, notebook: str, internet: bool) -> dict:
    """What `kaggle kernels push` reads: https://github.com/Kaggle/kaggle-cli/blob/main/docs/kernels_metadata.md."""
    gpu = {"machine_shape": "NvidiaTeslaT4"} if notebook in NEEDS_GPU else {}  # its own default cannot run today's torch
    return {
        "id": kernel_id(username, notebook),
        "title": kernel_id(username, notebook).split("/")[1].replace("-", " "),  # Kaggle makes the id of the title
        "code_file": f"{notebook}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": notebook in NEEDS_GPU,
        "enable_internet": internet,
        "dataset_sources": [f"{username}/{KIT}"],
        "competition_sources": [COMPETITION],
        "kernel_sources": [kernel_id(username, read) for read in READS[notebook]],
        "model_sources": [],
    } | gpu


def write(folder: Path, username: str, weights: Path | None = None) -> list[str]:
    """Write a folder per notebook and the data set `kit` into `folder`, which they replace; the commands that upload them, in order.

    `weights`: a file with timm's VGG19 weights, to go into the data set. Raises FileNotFoundError if it is not there.
    """
    if weights and not weights.is_file():
        raise FileNotFoundError(f"{weights} is not a file: give timm's vgg19 weights, or leave --weights out.")
    shutil.rmtree(folder, ignore_errors=True)
    kit = folder / "kit"
    shutil.copytree(ROOT / "utils", kit / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", kit)
    (kit / "weights").mkdir()
    (kit / "weights" / "README.md").write_text("A place for timm's VGG19 weights, vgg19.safetensors: notebook 4 then needs no internet.\n")
    if weights:
        shutil.copy(weights, kit / "weights" / "vgg19.safetensors")
    about = {"title": KIT.replace("-", " "), "id": f"{username}/{KIT}", "licenses": [{"name": "other"}]}
    (kit / "dataset-metadata.json").write_text(json.dumps(about, indent=1))
    commands = [f"kaggle datasets create -p {kit} --dir-mode zip"]
    for notebook in READS:
        (folder / notebook).mkdir()
        shutil.copy(ROOT / "notebooks" / f"{notebook}.ipynb", folder / notebook)
        metadata = kernel_metadata(username, notebook, internet=notebook == "04_vgg19" and not weights)
        (folder / notebook / "kernel-metadata.json").write_text(json.dumps(metadata, indent=1))
        commands.append(f"kaggle kernels push -p {folder / notebook}")
    return commands


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.kaggle", description="Make the notebooks and the kit ready for Kaggle.")
    parser.add_argument("username", help="yours on Kaggle")
    parser.add_argument("--to", type=Path, default=work_folder() / "kaggle", help="where the folders go; what is there is replaced")
    parser.add_argument("--weights", type=Path, help="a file with timm's VGG19 weights, for notebook 4 without internet")
    options = parser.parse_args(arguments)
    upload, *push = write(options.to, options.username, options.weights)
    print(f"Written to {short_path(options.to)}. With `pip install kaggle`, your API token, and the competition's rules accepted, type:\n")
    print(upload, "# the next time: kaggle datasets version -m new --dir-mode zip -p ...", sep="  ")
    print(*push, sep="\n")
    print(f"\nPush each after the one before it has finished: kaggle kernels status {kernel_id(options.username, '01_eda')}")


if __name__ == "__main__":
    main()
