"""Run the notebooks in order: python -m utils.run [01 03 ...] [--data DIR] [--work DIR] [--preset NAME] [--inplace]"""

import argparse
import logging
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from .config import PRESETS
from .files import explain_errors
from .workspace import ROOT, errors_in_one_sentence, find_data, short_path, work_folder

NOTEBOOKS = ROOT / "notebooks"
REPORTS = re.compile(r"^.* clips .*, see .*\.csv\n(?:  .*\n)+", re.MULTILINE)  # what mel_cache.build and load print


class Client(NotebookClient):
    """A notebook client that shows the notebook's printed output on a progress bar."""

    bar: tqdm

    def process_message(self, msg: dict, cell: nbformat.NotebookNode, cell_index: int) -> nbformat.NotebookNode | None:
        if msg["msg_type"] == "stream" and (lines := re.findall(r"[^\r\n]*\S", msg["content"]["text"])):
            self.bar.set_postfix_str(re.sub(r"\|[^|]*\|", "", lines[-1]).strip()[:60])  # without the bar of a bar
        return super().process_message(msg, cell, cell_index)


def run_notebook(file: Path, copy: Path, bar: tqdm) -> None:
    """Run `file` top to bottom, with its own folder as working directory, and save the result as `copy`.

    Raises CellExecutionError with the failing cell and its traceback, or RuntimeError if the kernel dies; `copy` then
    holds the notebook up to there.
    """
    notebook = nbformat.read(file, as_version=4)
    client = Client(
        notebook, kernel_name="python3", timeout=None, resources={"metadata": {"path": str(NOTEBOOKS)}},
        on_cell_executed=lambda cell, cell_index, **_: bar.update(), record_timing=False, coalesce_streams=True,
        extra_arguments=["--log-level=50"],  # hides the kernel's messages about its sockets
    )  # fmt: skip
    client.bar = bar
    try:
        client.execute()
    finally:
        notebook.metadata.pop("language_info", None)
        nbformat.write(notebook, copy)


def results(copy: Path) -> str:
    """Return what the cells tagged `results` of an executed notebook showed, as text."""
    texts = []
    for cell in nbformat.read(copy, as_version=4).cells:
        if "results" in cell.metadata.get("tags", []):
            texts += [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(text.rstrip() for text in texts)


def unreadable_and_damaged(copies: list[Path]) -> str:
    """Repeat what these notebooks printed about unreadable and damaged clips, each once."""
    cells = [cell for copy in copies for cell in nbformat.read(copy, as_version=4).cells]
    texts = [output.get("text", "") for cell in cells for output in cell.get("outputs", [])]
    found = dict.fromkeys(said for text in texts for said in REPORTS.findall(text))
    return "".join(f"WARNING {said}" for said in found).rstrip()


def _prepare(arguments: list[str] | None) -> tuple[list[Path], Path, bool]:
    """Parse the command line, and set the environment of the kernels and the folder of the executed copies.

    Returns the notebooks to run, that folder, and whether to update the outputs stored in the notebooks.
    """
    parser = argparse.ArgumentParser(prog="python -m utils.run", description="Run the notebooks in order.")
    parser.add_argument("notebooks", nargs="*", help="numbers of the notebooks, such as 3 5 (default: all)")
    parser.add_argument("--data", help="data folder, in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--work", help="folder for artifacts (FAT_WORK)")
    parser.add_argument("--preset", choices=PRESETS, help="default: quick, on a GPU full (FAT_PRESET)")
    parser.add_argument("--inplace", action="store_true", help="update the outputs stored in the notebooks")
    options = parser.parse_intermixed_args(arguments)
    for name, value in (("FAT_DATA", options.data), ("FAT_WORK", options.work), ("FAT_PRESET", options.preset)):
        if value:
            os.environ[name] = value
    for name in ("FAT_DATA", "FAT_WORK", "FAT_SUBMISSIONS", "FAT_VGG19_WEIGHTS"):
        if os.environ.get(name):  # the kernels run in another folder
            os.environ[name] = os.path.abspath(Path(os.environ[name]).expanduser())

    files, numbers = sorted(NOTEBOOKS.glob("*.ipynb")), {number.zfill(2) for number in options.notebooks}
    chosen = [file for file in files if not numbers or file.name[:2] in numbers]
    if unknown := numbers - {file.name[:2] for file in files}:
        there = ", ".join(file.stem for file in files)
        parser.error(f"there is no notebook {', '.join(sorted(unknown))}; there are {there}")
    if options.inplace and (os.environ.get("FAT_DATA") or find_data()):
        parser.error("--inplace stores outputs of the mini set: omit --data, unset FAT_DATA and move data/ away")
    if options.inplace and os.environ.get("FAT_WORK"):
        parser.error("--inplace stores outputs with their paths: omit --work and unset FAT_WORK")
    copies = work_folder() / "notebooks"
    if copies.is_dir() and copies.samefile(NOTEBOOKS):
        parser.error("the work folder is the kit's own, whose notebooks would be overwritten: choose another --work")
    with errors_in_one_sentence(parser), explain_errors(copies):
        copies.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this Python, not one that a user installed
    return chosen, copies, options.inplace


def main(arguments: list[str] | None = None) -> int:
    chosen, copies, inplace = _prepare(arguments)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # after Ctrl-C, it would complain of the kernel
    cells = [sum(cell.cell_type == "code" for cell in nbformat.read(file, as_version=4).cells) for file in chosen]
    began, executed = time.perf_counter(), []
    bar_format = "{desc} |{bar:20}| {n}/{total} cells [{elapsed}]{postfix}"
    with tqdm(total=sum(cells), unit="cell", bar_format=bar_format) as bar:
        for number, file in enumerate(chosen, 1):
            bar.set_description_str(f"{file.stem} ({number}/{len(chosen)})")
            start = time.perf_counter()
            executed.append(copies / file.name)
            try:
                run_notebook(file, copies / file.name, bar)
            except OSError as error:  # such as a full disk
                bar.close()
                print(f"\n{file.stem} stopped: {error}", file=sys.stderr)
                return 1
            except (CellExecutionError, RuntimeError, KeyboardInterrupt, AssertionError, AttributeError) as error:
                # The last three come from Ctrl-C.
                bar.close()
                print(unreadable_and_damaged(executed))
                in_cell = isinstance(error, CellExecutionError)
                what = f"{error.ename}: {error.evalue}" if in_cell else error
                where = f"its output{', with the traceback,' * in_cell} is in {copies / file.name}"
                print(f"\n{file.stem} stopped; {where}; the same command resumes\n\n{what}", file=sys.stderr)
                return 1
            bar.write(f"{file.stem:20} {time.perf_counter() - start:6.0f} s")
            if inplace:
                shutil.copy(copies / file.name, file)
    print(f"{'all':20} {time.perf_counter() - began:6.0f} s\n")
    texts = [*map(results, executed), f"executed notebooks: {short_path(copies)}", unreadable_and_damaged(executed)]
    print("\n\n".join(filter(None, texts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
