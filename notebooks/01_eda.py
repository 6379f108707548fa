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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/01_eda.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/01_eda.ipynb)
#
# # 1. The data
#
# **Audio tagging** asks which sounds are heard in a clip; there may be several. This kit follows B. Zhang, J. Leitner and S. Thornton,
# *Audio Recognition using Mel Spectrograms and Convolution Neural Networks* (UC San Diego, 2019): **the paper**. Its data is that of
# Kaggle's [Freesound Audio Tagging 2019](https://www.kaggle.com/c/freesound-audio-tagging-2019): **the competition**.
#
# That data has eighty classes: five thousand clips with labels checked by people (the **curated set**), twenty thousand with labels made by
# machine (the **noisy set**). Before you train a model, see and hear them. The outputs stored here are of the **mini set**: twelve classes
# of synthetic sounds, which need no download. There are two presets: `full` follows the publications, as far as they give their settings,
# and has the whole recipe of our own `best`; `quick` takes minutes on two cores. In this notebook they do the same.
#
# **You get** the tables, the classes, the durations, a spectrogram of every class, and some clips to see and hear. **Reads** the data
# folder. **Writes** nothing but the mini set, to `work/`, if it finds no data. **Takes** less than a minute.

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
# ## The tables
#
# Each set is a table with one row per clip. The labels are comma-separated; top-5 accuracy (notebook 7) looks only at the first one.

# %%
import librosa
from IPython.display import display

from utils import audio, charts, data, mel, plots

competition = kit.competition
curated, noisy, test = competition.curated, competition.noisy, competition.test
curated[["fname", "labels"]].head()

# %% [markdown]
# How many labels does a clip have?

# %%
import pandas as pd

labels = {"curated": data.split_labels(curated["labels"]), "noisy": data.split_labels(noisy["labels"])}
labels_per_clip = pd.DataFrame({name: lists.str.len().value_counts() for name, lists in labels.items()})
labels_per_clip.rename_axis("labels per clip").fillna(0).astype(int)

# %% [markdown]
# ## The classes
#
# In the competition, the curated set has at most 75 clips per class and the noisy set 300. In this dataset:

# %%
counts = data.clips_per_class({"curated": curated, "noisy": noisy}).reindex(competition.classes, fill_value=0)
counts.agg(["min", "median", "max"]).astype(int)

# %% [markdown]
# Sorted by the curated set, each on its own scale:

# %%
charts.clips_per_class(counts)

# %% [markdown]
# Which labels occur together? The most frequent curated pairs (of equals, in alphabetical order):

# %%
pairs = data.label_pairs(curated)
charts.bars(pairs.head(10), "Curated clips with both labels") if len(pairs) else "no clip has two labels"

# %% [markdown]
# ## Durations
#
# In seconds:

# %%
sets = {"curated": curated, "noisy": noisy, "test": test}
seconds = {name: audio.durations(table) for name, table in sets.items() if len(table)}
pd.DataFrame({name: pd.Series(values).describe() for name, values in seconds.items()}).drop("count").round(2)

# %% [markdown]
# The dotted line marks 2 s, the length that the paper's models see at once. The paper calls that the average, but the competition's curated
# clips last 7.6 s on average, so its models never see most of the sound.

# %%
charts.durations(seconds)

# %% [markdown]
# ## One clip per class
#
# The first 2 s, from where silence ends, of the first clip with this label and no other, as spectrograms (notebook 2): time runs to the
# right, frequency upward, on the mel scale. Brightness is the level relative to the clip's loudest point; black is 80 dB or more below it
# (at most a hundred-millionth of its power), such as the padding at the right. Percussive sounds are narrow in time, tonal sounds narrow in
# frequency, and noise fills both, so an image network can tell them apart.

# %%
from contextlib import suppress

settings = kit.preset.mel
one_label = curated[curated["labels"].isin(competition.classes)]
examples = {}
for clip in one_label.drop_duplicates("labels").sort_values("labels").itertuples():
    with suppress(audio.UnreadableClip):  # notebook 2 lists them
        samples = mel.trim(audio.load_clip(clip.path, settings), settings)
        two_seconds = librosa.util.fix_length(samples, size=2 * settings.sample_rate)
        examples[plots.display_name(clip.labels)] = mel.log_mel(two_seconds, settings)
plots.spectrograms(examples, settings) if examples else "every clip has several labels, or cannot be read"

# %% [markdown]
# ## How they look and sound
#
# Like the first two figures of the paper (section III): a clip's waveform and its log-mel spectrogram, of which the models see 2 s.
# Notebook 2 explains the conversion. Each player has the first two seconds.

# %%
def show(clip, of=""):
    samples = audio.load_clip(clip["path"], settings)
    plots.clip(samples, settings, plots.display_name(clip["labels"]) + of)
    return plots.player(samples, settings)


some = curated.drop_duplicates("labels").head(2)

# %% tags=["nbval-ignore-output"]
for _, clip in some.iterrows():
    with suppress(audio.UnreadableClip):
        display(show(clip))

# %% [markdown]
# ## Curated and noisy
#
# The noisy set has the same classes, but its labels are often wrong and its clips come from Flickr videos, not Freesound. (In the mini set,
# two in five of its labels are random.) This noisy clip has the label of the first clip above, rightly or wrongly. (In the stored outputs,
# rightly: a bass drum too, beaten faster and in more noise.)

# %% tags=["nbval-ignore-output"]
same_label = noisy[noisy["labels"] == some["labels"].iloc[0]]
with suppress(audio.UnreadableClip):
    display(show(same_label.iloc[0], " (noisy set)") if len(same_label) else "no noisy clip has this label")

# %% [markdown]
# ## Label corrections
#
# The organizers named six curated clips: five have a wrong label, since files were renamed wrongly, and one has no signal. The labels below
# are what the competition's winner heard; the silent clip and two more are left out. `data.correct_labels` does this before training; on
# other data it changes nothing.

# %%
corrections = pd.Series(data.LABEL_CORRECTIONS, name="should be").fillna("left out").to_frame()
print(corrections.index.isin(curated["fname"]).sum(), "of these clips are in this dataset")
corrections

# %% [markdown]
# **Try it**: can you name a class from its picture, before you listen? In a new cell, run `clip = curated.sample(1).iloc[0]` and
# `display(show({"path": clip["path"], "labels": "which class?"}))`; the answer is `clip["labels"]`.
#
# Next: `02_preprocessing` turns clips into spectrograms and caches them.
