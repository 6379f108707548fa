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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/07_evaluation.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/07_evaluation.ipynb)
#
# # 7. How good is it, and where does it fail?
#
# One figure ranks the models; the tables behind it say which sounds they know, which they confuse with which, and which
# clips to listen to next.
#
# **You get** the paper's Table 1 with our figures beside it, tables like its Tables 2 to 5, the most confused pairs, and
# the worst clips. **Reads** the runs of the notebooks before. **Writes** nothing. **Takes** seconds.

# %% tags=["parameters"]
data_folder = None  # a folder in Kaggle's or Zenodo's layout; None finds it, or makes the mini set
preset = None  # "full" or "quick"; None is "full" on a GPU and "quick" without

# %% tags=["nbval-ignore-output"]
import os, sys

places = ["..", "freesound-tagging-kit", "/kaggle/input/freesound-tagging-kit", "/kaggle/input/datasets/OWNER/freesound-tagging-kit"]
if not any(os.path.isdir(f"{place}/utils") for place in places):  # opened from a badge; on Kaggle, turn the internet on
    os.system("git clone --quiet --depth=1 https://github.com/OWNER/freesound-tagging-kit")
sys.path[:0] = places

# %% tags=["nbval-ignore-output"]
from utils import setup

kit = setup(data_folder, preset)

# %%
from IPython.display import display

from utils import audio, data, mel, metrics, plots, submission
from utils.run_folder import common_clips, find_runs

runs = find_runs(kit.runs)
common = common_clips(runs)  # the validation clips that all of them were judged on

# %% [markdown]
# ## Table 1
#
# Label-weighted label-ranking average precision asks, for every label of every clip: of the classes that score at least as
# high, which share are labels of that clip? The mean over all labels, with $Y_i$ the labels of clip $i$ and $s_i$ its scores, is
#
# $$LWLRAP = \frac{1}{\sum_i |Y_i|} \sum_i \sum_{y \in Y_i}
# \frac{|\{z \in Y_i : s_i(z) \ge s_i(y)\}|}{|\{c : s_i(c) \ge s_i(y)\}|}$$
#
# Top-5: the clip's first label is among its five highest scores. The paper's figures are for the 80 classes of FSDKaggle2019
# after 400, 100 and 400 epochs; on other data or after fewer epochs they are no yardstick. Ours are those of the last epoch, all crops of a clip averaged.

# %%
import pandas as pd

paper = pd.DataFrame(
    {"paper LWLRAP": [0.813, 0.797, 0.737], "paper top-5": [0.889, 0.885, 0.829]},
    index=["Deep CNN", "VGG19, transfer", "VGG19, no weights"],
)

# %% tags=["nbval-ignore-output", "results"]
print(f"Validation clips of {kit.competition.folder.name}, {len(kit.competition.classes)} classes; the paper: FSDKaggle2019, 80 classes")
ours = pd.DataFrame([run.summary(common) for run in runs]).join(paper, on="model")
ours.set_index("run").drop(columns="model").round(3)

# %% [markdown]
# ## Tables 2 to 5: class by class
#
# A class counts as found in a clip when its score reaches a threshold, which the paper does not state. Precision: of the clips
# in which it was found, the share that have it. Recall: of the clips that have it, the share in which it was found. F1 is
# their harmonic mean, and 0 where the class was never rightly found.
#
# In the paper the Deep CNN does best on Bass drum (F1 0.97), Gurgling and Finger snapping (0.94), Harmonica (0.92) and Hi-hat
# (0.91), and worst on Chirp and tweet and Walk and footsteps (0.17), Squeak (0.20), Sink (0.25) and Water tap (0.29).

# %%
threshold = 0.3
best_three = runs[:3]
tables = {run.name: metrics.per_class_table(*run.on(common), run.classes, threshold) for run in best_three}

# %% [markdown]
# The five best classes of the three best models, by F1:

# %% tags=["nbval-ignore-output"]
pd.concat({name: table.head() for name, table in tables.items()}).round(2)

# %% [markdown]
# And the five worst:

# %% tags=["nbval-ignore-output"]
pd.concat({name: table.tail()[::-1] for name, table in tables.items()}).round(2)

# %% [markdown]
# LWLRAP of each class needs no threshold:

# %%
plots.per_class(pd.DataFrame({name: table["LWLRAP"] for name, table in tables.items()}), "LWLRAP")

# %% [markdown]
# ## Most confused pairs
#
# The best model's validation clips whose highest score is none of their labels:

# %% tags=["nbval-ignore-output"]
best = runs[0]
metrics.most_confused_pairs(*best.on(common), best.classes).head(10)

# %% [markdown]
# ## The worst clips
#
# Those whose first label ranks lowest. Often the label is wrong, or the sound is too short or too faint; listen before you tune.
# Each player has the first two seconds.

# %% tags=["nbval-ignore-output"]
worst = best.validation[["fname", "labels"]].assign(
    rank=metrics.label_rank(data.first_label(best.validation, best.classes), best.scores),
    highest=[best.classes[i] for i in best.scores.argmax(axis=1)],
)
worst = worst.sort_values("rank", ascending=False).head(3)
worst

# %% tags=["nbval-ignore-output"]
paths = kit.competition.curated.set_index("fname")["path"]
for clip in worst[worst["fname"].isin(paths.index)].itertuples():  # one may have left the table since
    samples = audio.load_clip(paths[clip.fname], kit.preset.mel)
    plots.clip(samples, mel.log_mel(samples, kit.preset.mel), kit.preset.mel, f"{clip.labels} (highest score: {clip.highest})")
    display(plots.player(samples, kit.preset.mel))

# %% [markdown]
# ## The leaderboard at home
#
# The public release on Zenodo tells the labels of the test clips, and which of them made Kaggle's Public and Private leaderboards. With
# those data and a submission of notebook 8, this is what the leaderboards would have said. Expect some 0.13 less than on validation clips.

# %% tags=["nbval-ignore-output"]
file = kit.submissions / "submission.csv"
if "usage" in kit.competition.test and file.exists():
    display(submission.leaderboard(file, kit.competition).round(3))
else:
    print("These data do not tell the labels of the test clips, or there is no submission yet.")

# %% [markdown]
# Next: `08_submission` scores the test clips.
