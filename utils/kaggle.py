"""Prepare the notebooks and the kit for Kaggle: python -m utils.kaggle USERNAME [--to FOLDER]

Each notebook gets a folder with a kernel-metadata.json, and the kit becomes a dataset that all of them attach. They
then need no internet, except 04_vgg19, which downloads weights, and 09_explanation, which installs zennit. Prints the
commands to run.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

from . import files
from .workspace import ROOT, errors_in_one_sentence, quoted, short_path, work_folder

COMPETITION = "freesound-audio-tagging-2019"
KIT = "freesound-tagging-kit"
MARKER = f".{KIT}"  # marks a folder that was written here and may be replaced
TRAININGS = ["03_cnn", "04_vgg19", "05_related_work", "06_beyond_the_paper"]
READS = {  # the notebooks whose output each notebook reads
    "01_eda": [],
    "02_preprocessing": [],
    "03_cnn": ["02_preprocessing"],
    "04_vgg19": ["02_preprocessing", "03_cnn"],
    "05_related_work": ["02_preprocessing", "03_cnn", "04_vgg19"],
    "06_beyond_the_paper": ["02_preprocessing"],
    "07_evaluation": TRAININGS,
    "08_submission": ["02_preprocessing", *TRAININGS],
    "09_explanation": ["02_preprocessing", *TRAININGS],
    "10_your_sounds": TRAININGS,
}
FOR_SUBMISSION = ("02_preprocessing", "06_beyond_the_paper", "08_submission")
WITH_INTERNET = ("04_vgg19", "09_explanation")
ON_CPU = ("01_eda", "02_preprocessing", "07_evaluation")


def kernel_id(username: str, notebook: str) -> str:
    return f"{username}/{KIT}-{notebook.replace('_', '-')}"


def write(folder: Path, username: str) -> list[str]:
    """Write `folder`, with a folder per notebook and the dataset `kit`; return the upload commands, in order.

    Raises FileExistsError if `folder` is neither empty nor written by this function. Runs in its `kit` are kept.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / MARKER).is_file() or not any(folder.iterdir()))):
        raise FileExistsError(f"{folder} was not written by utils.kaggle: remove it, or name a new or empty folder.")
    # Only contents are copied: read-only files need not stay read-only.
    with files.atomic_folder(folder.resolve(), replace=True) as unfinished:
        (unfinished / MARKER).touch()
        _write_kit(unfinished / "kit", username)
        if (runs := folder / "kit" / "runs").is_dir():
            shutil.copytree(runs, unfinished / "kit" / "runs", copy_function=shutil.copyfile)
        for notebook in READS:
            _write_kernel(unfinished / notebook, username)
    upload = f"kaggle datasets create -p {quoted(folder / 'kit')} --dir-mode zip"
    return [upload, *(f"kaggle kernels push -p {quoted(folder / notebook)}" for notebook in READS)]


def _write_kit(folder: Path, username: str) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "utils", folder / "utils", ignore=ignored, copy_function=shutil.copyfile)
    shutil.copyfile(ROOT / "requirements.txt", folder / "requirements.txt")
    about = {"title": KIT.replace("-", " "), "id": f"{username}/{KIT}", "licenses": [{"name": "other"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(about, indent=1))


def _write_kernel(folder: Path, username: str) -> None:
    """Write a notebook, named like `folder`, and what `kaggle kernels push` reads."""
    folder.mkdir()
    notebook = folder.name
    text = (ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8")
    mounted = text.replace("/kaggle/input/datasets/OWNER/", f"/kaggle/input/datasets/{username}/")
    (folder / f"{notebook}.ipynb").write_text(mounted, encoding="utf-8")
    # Source: https://github.com/Kaggle/kaggle-cli/blob/main/docs/kernels_metadata.md
    gpu = {"machine_shape": "NvidiaTeslaT4"} if notebook not in ON_CPU else {}  # two T4s
    metadata = {
        "id": kernel_id(username, notebook),
        "title": kernel_id(username, notebook).split("/")[1].replace("-", " "),  # Kaggle derives the id from the title
        "code_file": f"{notebook}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": bool(gpu),
        "enable_internet": notebook in WITH_INTERNET,
        "dataset_sources": [f"{username}/{KIT}"],
        "competition_sources": [COMPETITION],
        "kernel_sources": [kernel_id(username, read) for read in READS[notebook]],
        "model_sources": [],
    }
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata | gpu, indent=1))


def main(arguments: list[str] | None = None) -> None:
    about = "Prepare the notebooks and the kit for Kaggle."
    parser = argparse.ArgumentParser(prog="python -m utils.kaggle", description=about)
    parser.add_argument("username", help="your Kaggle username")
    where = "folder to write: a new one, or one written by this command, which is replaced, but for runs"
    parser.add_argument("--to", type=Path, default=work_folder() / "kaggle", help=where)
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[\w-]+", options.username):
        parser.error(f"{options.username!r} is no username: give the one in the address of your profile")
    with errors_in_one_sentence(parser):
        upload, *push = write(options.to, options.username)
    runs = quoted(options.to / "kit" / "runs")
    print(f"Written to {short_path(options.to)}. Run `pip install kaggle`, set up your API token, verify your")
    print("phone, which GPUs need, and accept the competition's rules. If you have runs on its data, copy their folder")
    print(f"(mkdir -p {runs} && cp -r work/runs/data-1a2b3c {runs}), and later push only 08. Now:\n")
    print(upload)
    print(f"\nFor an update: kaggle datasets version -m new --dir-mode zip -p {quoted(options.to / 'kit')}")
    print("Notebooks that are pushed before the kit is ready run without it. Repeat until it is:\n")
    print(f"kaggle datasets status {options.username}/{KIT}")
    print("\nFor a submission, push these. Before each, repeat the status of the one above until it is complete:\n")
    others = dict(zip(READS, push))
    for notebook in FOR_SUBMISSION:
        print(others.pop(notebook), f"kaggle kernels status {kernel_id(options.username, notebook)}", sep="\n")
    print("\nThe others, in this order:\n", *others.values(), sep="\n")


if __name__ == "__main__":
    main()
