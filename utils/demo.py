"""Web page that tags a sound you drop or record (pip install gradio): python -m utils.demo [--run FOLDER]"""

import argparse
import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from . import audio, plots, predict, runs, workspace
from .run_folder import Run

ABOUT = """# What is in your sound?
{title}, with {classes} classes. If all scores are low, the sound is probably none of them; but a sound of another
class may also score high on the nearest one."""


def tag_sound(path: str | Path, run: Run, device: str = "cpu") -> tuple[dict[str, float], Figure]:
    """Return a sound's five highest scores, and a plot of its tags over time. Raises ValueError as `tag` does."""
    samples = audio.load_clip(path, run.mel)
    top = predict.top_classes(predict.tag(path, run, device), k=5)
    figure = plots.tags_over_time(samples, predict.tag_over_time(path, run, device=device), run.mel)
    plt.close(figure)  # or pyplot would keep the figure of every sound
    return dict(zip(top["class"].map(plots.display_name), top["score"].astype(float))), figure


def page(run: Run, device: str = "cpu"):  # noqa: ANN201
    """Build the gradio page; its `launch()` serves it."""
    import gradio

    def answer(path: str | None) -> tuple[dict[str, float] | None, Figure | None]:
        try:
            return tag_sound(path, run, device) if path else (None, None)
        except (ValueError, FloatingPointError) as error:
            raise gradio.Error(str(error), print_exception=False) from error

    plt.switch_backend("agg")  # gradio draws in threads, which cannot open windows
    with gradio.Blocks(title="Freesound tagging kit") as blocks:
        gradio.Markdown(ABOUT.format(title=run.record["title"], classes=len(run.classes)))
        if runs.on_mini_set(run):
            gradio.Markdown(f"**{runs.ON_MINI_SET}**")
        sound = gradio.Audio(sources=["upload", "microphone"], type="filepath", label="Drop a file, or record")
        shown = [gradio.Label(label="scores (of a long sound, from excerpts)"), gradio.Plot(label="tags over time")]
        sound.change(answer, sound, shown, api_name="tag")
    return blocks


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.demo", description="Open a page that tags sounds.")
    parser.add_argument("--run", metavar="FOLDER", help="folder of the run (default: the best in the work folder)")
    options = parser.parse_args(arguments)
    if not importlib.util.find_spec("gradio"):
        parser.exit(1, "The page needs gradio, which is not installed: pip install gradio\n")
    with workspace.errors_in_one_sentence(parser):
        run = runs.open_run(options.run)
        page(run, workspace.find_device()[0]).launch()


if __name__ == "__main__":
    main()
