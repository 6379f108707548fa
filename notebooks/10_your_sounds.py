# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/10_your_sounds.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/10_your_sounds.ipynb)
#
# # 10. Your sounds
#
# You have a folder of sounds and want to know what is in them, or you have sorted them into folders and want a model that does it for you.
# The kit comes without a trained model: the tags are those of a run that you have trained. A run on the mini set knows twelve synthetic
# sounds and says nothing useful about a recording.
#
# **You get** the tags of your sounds, those of a long recording over time, and a model of your own classes. **Reads** your folders and the
# runs of the earlier notebooks. **Writes** a dataset and its runs to the work folder. **Takes** less than a minute.
#
# **Opened from a badge?** First make what it reads, in a new cell below `setup`:
# `!cd freesound-tagging-kit && python -m utils.run --data "{kit.competition.folder}" --preset {kit.preset.name} 02 03`

# %% tags=["parameters"]
data_folder = None  # a folder in Kaggle's or Zenodo's layout; None finds it, or makes the mini set
preset = None  # "full" or "quick"; None is "full" on a GPU and "quick" without

# %% tags=["nbval-ignore-output"]
# Finds the kit's folder, or fetches it if this was opened from a badge (on Kaggle, turn the internet on).
import os, subprocess, sys

places = [".", "..", "../..", "freesound-tagging-kit", "/kaggle/input/freesound-tagging-kit"]
places += ["/kaggle/input/datasets/OWNER/freesound-tagging-kit"]
found = [place for place in places if os.path.isfile(f"{place}/utils/mel_cache.py")]
if not found:
    url = "https://github.com/OWNER/freesound-tagging-kit"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", url], check=True)
sys.path.insert(0, os.path.abspath((found or ["freesound-tagging-kit"])[0]))

# %% tags=["nbval-ignore-output"]
from utils import setup

kit = setup(data_folder, preset)

# %% [markdown]
# ## Your folders
#
# Set what you have; what stays `None` is made from clips of the data above. WAV, FLAC, Ogg and MP3 of any sample rate are read, other files
# skipped: `ffmpeg -i a.m4a a.wav` converts one.
#
# On your own machine, give a path. In Colab, connect your Drive in the panel on the left, or drop a ZIP file there, unpack it in a new
# cell, `!unzip -q /content/my-sounds.zip -d /content/unzipped`, and name a folder in it (not `/content` itself, where the kit lies, with
# the sounds of the mini set). On Kaggle, *Add input*, *Upload*. If you have labeled folders but no run yet, run this part and go on at *A
# model of your own classes*.

# %%
sounds = None  # a folder, such as "/content/drive/MyDrive/sounds" or "/kaggle/input/datasets/YOU/my-sounds"
recording = None  # one long sound file
labeled = None  # a folder with a subfolder of sounds for each class

# %%
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display

from utils import audio, mel_cache, plots, predict, runs

examples = kit.folder / "examples" / kit.runs.name

# %%
def copy_readable(paths, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        with suppress(audio.UnreadableClip):
            audio.load_clip(path, kit.preset.mel)
            shutil.copyfile(path, folder / Path(path).name)


if sounds is None:
    sounds = examples / "sounds"
    shutil.rmtree(sounds, ignore_errors=True)  # left by an earlier run
    copy_readable(kit.competition.test["path"].tail(8), sounds)

# %%
print(len(audio.find_sounds(sounds)), "sounds")

# %% [markdown]
# ## Tag them
#
# The model is a run on your dataset with the most classes (the mini set only if there is no other), here or in what you attached on Kaggle.
# Of its runs, it is the one that notebook 8 would choose, pretrained ones included.

# %% tags=["nbval-ignore-output"]
run = runs.best_run()  # another: runs.open_run("../work/runs/...")
print(f"{run.record['title']}, {len(run.classes)} classes, validation LWLRAP {run.summary()['LWLRAP']:.3f}")

# %% tags=["nbval-ignore-output"]
scores = predict.tag(sounds, run, kit.device)
predict.top_classes(scores, k=2).set_index(["fname", "class"])

# %% [markdown]
# `scores.to_csv("scores.csv")` saves all scores. The first three sounds, each with a player for its first two seconds:

# %% tags=["nbval-ignore-output"]
for fname in scores.index[:3]:
    samples = audio.load_clip(Path(sounds) / fname, run.mel)
    found = ", ".join(f"{plots.display_name(label)} {score:.2f}" for label, score in scores.loc[fname].nlargest(2).items())
    plots.clip(samples, run.mel, f"{fname}: {found}")
    display(plots.player(samples, run.mel))

# %% [markdown]
# ## How to read the scores: calibration
#
# A model is **calibrated** if, of its scores near 0.8, four fifths are right. Of all scores (each validation clip with each class, none
# trained on), how many belong to a label?

# %% tags=["nbval-ignore-output"]
pairs = pd.DataFrame({"score": run.scores.ravel(), "label": run.targets.ravel()})
ranges = ["0 to 0.1", "0.1 to 0.3", "0.3 to 0.5", "0.5 to 0.7", "0.7 to 0.9", "0.9 to 1"]
bins = pd.cut(pairs["score"], [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1], labels=ranges, include_lowest=True)
columns = {"scores": ("score", "size"), "mean score": ("score", "mean"), "share that are labels": ("label", "mean")}
pairs.groupby(bins, observed=True).agg(**columns).round(2)

# %% [markdown]
# Compare the last two columns; rows of a few scores say little. (For `best`, each clip here was scored by one model. Your sounds get the
# geometric mean of five, which is lower where they disagree.)
#
# If all scores are low, read "none of my classes, or buried in noise", not the class on top. A high score is no proof either: the model has
# never been shown sounds outside its classes, so it may take one for the class that is nearest. Here is a siren, for which neither the
# competition nor the mini set has a class:

# %% tags=["nbval-ignore-output"]
import soundfile

t = np.arange(3 * 44_100) / 44_100  # s
siren = 0.4 * np.sin(2 * np.pi * 800 * t - 600 * np.cos(np.pi * t))  # goes up and down, 500 to 1100 Hz, in 2 s
examples.mkdir(parents=True, exist_ok=True)
soundfile.write(examples / "siren.wav", siren, 44_100)
plots.tagged_clip(siren, predict.tag(examples / "siren.wav", run).iloc[0], run.mel, "a siren")
plots.player(siren, run.mel)

# %% [markdown]
# Ideally, all its scores are low. In the stored outputs the highest is 0.51, for a bass drum: enough to pass a threshold of 0.5. The table
# counts only clips of known classes, so it cannot say what another unknown sound would get. Listen to some of what the model finds before
# you rely on it, or train a model on your own classes, as below, with a class of the other sounds to expect. With a softmax
# (`run.config.activation`), the scores of a clip sum to one whatever is in it; with a sigmoid, all may be low. How high a score counts as a
# find? Notebook 7 plots F1 over the threshold.
#
# ## A long recording
#
# If you have none, one is made of the first two seconds of five sounds, one after another; shorter ones are padded.

# %%
import librosa

if recording is None:
    recording = examples / "recording.wav"
    clips = [audio.load_clip(Path(sounds) / fname, run.mel) for fname in scores.index[:5]]
    two_seconds = [librosa.util.fix_length(samples, size=2 * run.mel.sample_rate) for samples in clips]
    soundfile.write(recording, np.concatenate(two_seconds), run.mel.sample_rate)

# %% [markdown]
# The model sees 2 s at a time, here in a window every half second. The plot shows the spectrogram and, below it, the scores of the five
# classes with the highest peaks. As a window also hears what comes before and after, a score may rise up to a second early and fall as
# late; the first and the last are drawn to the ends. Silence, 80 dB or more below the recording's loudest point, scores 0.
# `over_time.to_csv("over_time.csv")` saves all scores, by the middles of the windows in seconds. The player has the first 10 s.

# %% tags=["nbval-ignore-output"]
samples = audio.load_clip(recording, run.mel)
over_time = predict.tag_over_time(recording, run, seconds=0.5, device=kit.device)
plots.tags_over_time(samples, over_time, run.mel)
plots.player(samples, run.mel, seconds=10)

# %% [markdown]
# As a table: a row for each series of windows that score a class at least 0.5, from the start of the first to the end of the last, in
# seconds. So its times are wider than in the plot, which has the middles, and than the sound.
# `python -m utils.predict FOLDER --detections found.csv` writes such a table of all recordings in a folder, with a window every second; one
# of an hour takes 2.4 GB of memory. (`predict.tag` above scores at most eight excerpts of a sound: enough for a short one.)

# %% tags=["nbval-ignore-output"]
predict.detections(over_time, run, threshold=0.5)

# %% [markdown]
# ## A model of your own classes
#
# Make a subfolder for each of at least two classes (for a single one, add background sounds as the other), with at least three sounds in
# each; the competition has up to 75. Training hears a random 2 s of a longer one, so cut out what the label is about.
#
# Are several sounds cut from one recording, or does a sound have several labels? Then list all sounds in a CSV file, and name it as `csv`
# below. Its columns are `fname` (relative to your folder), `labels` (comma-separated) and `group`, the same for all pieces of a recording:
# it keeps them on one side of a split, so that they do not inflate the score. With `start` and `end`, in seconds, a row is a part of a
# recording, cut out for you, so a table that `--detections` wrote is one to train on, once you have deleted wrong rows, narrowed the times
# to the sound, and added to `labels` what else is heard.

# %%
from utils import data, own

if labeled is None:
    labeled = examples / "labeled"
    shutil.rmtree(labeled, ignore_errors=True)  # left by an earlier run
    label = data.split_labels(kit.competition.curated["labels"]).str[0]
    names = label.value_counts().loc[lambda clips: clips >= own.MIN_CLIPS_PER_CLASS].index[:4]
    if len(names) < 2:
        raise ValueError(f"{kit.competition.folder} has too few clips per class for an example: set labeled to a folder.")
    for name in names:
        copy_readable(kit.competition.curated["path"][label == name][:20], labeled / re.sub(r"[^\w-]+", "_", name))

# %% [markdown]
# `own.make_dataset` turns them into a dataset in the competition's layout and sets aside a fifth for testing.

# %% tags=["nbval-ignore-output"]
source = Path(labeled).resolve()
target = kit.folder / "own" / "-".join(source.relative_to(source.anchor).parts[-2:])
own.make_dataset(labeled, target, csv=None, replace=True)
own_kit = setup(str(target), "quick")
# The example's runs are kept apart from yours.
own_runs = examples / "runs" if Path(labeled).is_relative_to(examples) else own_kit.runs

# %%
competition = own_kit.competition
data.clips_per_class({"curated": competition.curated, "test": competition.test})

# %% [markdown]
# As in notebook 3, a fifth of the curated clips is for validation.

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

from utils import baselines, dataset, launch, models

cache = mel_cache.build(competition.curated, own_kit.cache, "curated", own_kit.preset.mel)
sets = dataset.load_split(cache, competition.curated, competition.classes, own_kit.preset, own_kit.device)

# %% [markdown]
# A small network and 150 steps, to see that it learns; leave out `max_steps`, `width` and `stem` for those of notebook 3:

# %% tags=["nbval-ignore-output"]
entry = models.MODELS["deep_cnn"]
config = replace(entry.config("quick"), max_steps=150)
model = entry.build(len(competition.classes), "quick", width=16, stem=8)
own_run = launch.fit(model, *sets, config, own_runs / "deep_cnn-small", entry.title)

# %% [markdown]
# The baseline is the k-NN of notebook 5 on the same clips: a network that does not beat it usually needs more clips, more steps or cleaner
# labels. (In the stored outputs, each misses one of 13 clips, by a rank or two: such a difference says nothing.)

# %% tags=["nbval-ignore-output"]
knn = baselines.fit("knn", *sets, own_runs / "knn-quick")
print(f"{len(own_run.validation)} validation clips")
pd.DataFrame([own_run.summary(), knn.summary()]).set_index("run")[["model", "epochs", "LWLRAP"]]

# %% [markdown]
# The confusion matrix of the test clips, which neither training nor validation has seen. Rows are your labels (of several, the first),
# columns the model's answers:

# %% tags=["nbval-ignore-output"]
says = predict.tag(competition.test["path"], own_run, kit.device).idxmax(axis=1).rename("the model")
said = data.split_labels(competition.test.set_index("fname")["labels"]).str[0].rename("you")
table = pd.crosstab(*said.align(says, join="inner"))
table.reindex(index=competition.classes, columns=competition.classes, fill_value=0)

# %% [markdown]
# With so few clips, one more or less is a large share: trust differences only on hundreds of clips.
#
# `predict.tag(sounds, own_run, kit.device)` tags the folder at the top with this small model. The commands below make a better one: the
# first trains the whole network, in minutes; the second trains `best`, which takes longer. The third tags the files in SOUNDS with the
# first. (For `best`, write `best-full` instead of `deep_cnn-quick`.) Type them in a shell in the kit's folder, or in a Colab cell after
# `!cd freesound-tagging-kit &&`. (`pip install gradio && python -m utils.demo` prints the address of a page where you drop or record a
# sound.)

# %% tags=["nbval-ignore-output"]
from utils.workspace import quoted, short_path

dataset_folder, model_folder = (quoted(short_path(folder)) for folder in (target, own_kit.run_folder("deep_cnn")))
print(f"python -m utils.run --data {dataset_folder} --preset quick 02 03 07 08")
print(f"python -m utils.run --data {dataset_folder} --preset full 02 06 08")
print(f"python -m utils.predict SOUNDS --run {model_folder}")
# %% [markdown]
# That is the whole way: from a waveform to a spectrogram, a network, an honest score, a submission, a look inside, and your own sounds.
# What to improve first? Your labels (notebook 7, the worst clips), then the number of clips, then the network.
