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
# **You get** the metric worked out by hand, the paper's Table 1 and our scores with their intervals, tables like its Tables 2 to 5, the
# most confused pairs, and the worst clips. **Reads** the runs of the earlier notebooks. **Writes** nothing. **Takes** seconds.
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

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from utils import audio, charts, data, metrics, plots
from utils.runs import common_clips, find_runs

runs = find_runs(kit.runs)
common = common_clips(runs)  # the validation clips that all of them were scored on

# %% [markdown]
# ## The metric, by hand
#
# For every label of every clip, label-weighted label-ranking average precision (LWLRAP) asks: of the classes that score at least as high,
# what share are labels of the clip? So tied scores share the worst rank. The example is the clip with several labels that one of the three
# best networks ranks worst. Its eight highest scores, and those of its labels:

# %% tags=["nbval-ignore-output"]
with_weights, cases = [run for run in runs if run.has_weights], []
for run in with_weights[:3] or runs[:1]:
    for targets, scores in zip(*run.on(common)):  # of one clip
        cases.append((metrics.lwlrap(targets[None], scores[None]), targets, scores, run.name))
several = [case for case in cases if case[1].sum() > 1] or cases
_, targets, scores, by = min(several, key=lambda case: case[0])
ranking = pd.DataFrame({"score": scores, "is a label": targets > 0}, index=kit.competition.classes)
ranking = ranking.sort_values("score", ascending=False)
ranking[ranking["is a label"] | (np.arange(len(ranking)) < 8)]

# %% [markdown]
# Now count: for each label, divide the labels so far by the rank.

# %% tags=["nbval-ignore-output"]
by_hand = metrics.lwlrap_by_hand(targets, scores, kit.competition.classes)
by_hand

# %% tags=["nbval-ignore-output"]
shares = " and ".join(f"{n}/{rank}" for n, rank in zip(by_hand["labels so far"], by_hand["rank"]))
print(f"{by}: {shares} are on average {by_hand['precision'].mean():.3f}, the clip's LWLRAP")

# %% [markdown]
# **Try it**: what would it be if the second label were ranked third? (In the stored outputs, (1 + 2/3) / 2 = 0.833.)
#
# The LWLRAP of many clips is the mean over all labels: a clip with two counts twice. With $Y_i$ the labels of clip $i$, $s_i$ its scores,
# and $c$ any class:
#
# $$LWLRAP = \frac{1}{\sum_i |Y_i|} \sum_i \sum_{y \in Y_i}
# \frac{|\{z \in Y_i : s_i(z) \ge s_i(y)\}|}{|\{c : s_i(c) \ge s_i(y)\}|}$$
#
# ## Table 1
#
# Top-5: the clip's first label is among its five highest scores. The paper's results on the 80 classes of FSDKaggle2019:

# %%
paper = pd.DataFrame(
    {"paper epochs": [400, 100, 400], "paper LWLRAP": [0.813, 0.797, 0.737], "paper top-5": [0.889, 0.885, 0.829]},
    index=["Deep CNN", "VGG19, transfer", "VGG19, no weights"],
)
paper

# %% [markdown]
# Ours are from the last epoch, all crops of a clip together, on the validation clips that all runs share (`best` was scored on all curated
# clips).
#
# **Are the paper's scores reached?** That is not known yet: no model of this kit has been trained on the competition's data. Compare scores
# only there, with `full`, and even then not by 0.01 or 0.02: the clips held out are others, and the paper mentions no third set to choose
# its settings on.
#
# With `quick`, `best` has 100 steps per fold and the Deep CNN at least 600, so `best` may rank lower, and the image networks of one epoch
# have hardly begun.
#
# Chance: a label at rank $r$ has a precision of $1/r$, so one label among $C$ classes, ranked at random, has $(1 + 1/2 + \dots + 1/C)/C$ on
# average: 0.26 for twelve classes, 0.06 for eighty. Its top-5 is 5/12 and 5/80. Inception V3 is below that with `quick`: after four steps
# all its scores are zero, and ties share the worst rank.

# %% tags=["nbval-ignore-output", "results"]
print(f"{kit.competition.folder.name}, {len(kit.competition.classes)} classes, preset {kit.preset.name}")
ours = pd.DataFrame([run.summary(common) for run in runs]).set_index("run")
ours

# %% [markdown]
# How much might these scores differ on other clips of the same kind? The bootstrap draws as many clips, with replacement, a thousand times;
# the interval spans the middle 95% of the results. Where two intervals overlap widely, do not trust the order; the interval of the
# difference, on the same clips, says more (notebook 6). Another seed would move the scores, too, which none of these intervals shows. The
# dotted line is chance.

# %% tags=["nbval-ignore-output"]
n_classes = len(kit.competition.classes)
chance = sum(1 / rank for rank in range(1, n_classes + 1)) / n_classes
intervals = [metrics.lwlrap_with_interval(*run.on(common)) for run in runs]
charts.intervals(pd.DataFrame(intervals, index=ours.index), chance)

# %% [markdown]
# ## One crop, or several
#
# During training, a network is validated on the first 2 s of each clip. The scores above average up to `test_crops` crops from its
# beginning to its end, each weighted by the root of its mean power over the mel bands (test-time augmentation). This costs no training and
# may help if clips are much longer than 2 s. (In the mini set, they last 2.5 s on average, so little changes.) Networks whose `test_crops`
# is 1 and `best` are not listed.

# %% tags=["nbval-ignore-output"]
by_crops = [run for run in with_weights if not run.folds() and run.config.test_crops > 1]
crops = {run.name: [run.config.test_crops, run.history["LWLRAP"].iloc[-1], run.summary()["LWLRAP"]] for run in by_crops}
table = pd.DataFrame(crops, index=["test crops", "one crop", "all crops"]).T.astype({"test crops": int})
table if len(table) else "each of these networks scores a clip by one crop"

# %% [markdown]
# ## F1 and its threshold
#
# A class is detected in a clip if its score reaches a threshold, which the paper does not state. Precision is the share of detections that
# are right, recall the share of the class's clips that are detected, and F1 their harmonic mean, or 0 without a correct detection.
#
# The plot shows macro F1, the mean over all classes with validation clips, for up to three of the highest-ranked models (without those
# whose F1 hardly rises above its value at threshold 0, where everything is detected). A dot marks the highest F1 (the middle of several),
# whose threshold the tables below use; if it lies at the right end, a higher one may be better. (The score of naive Bayes is no
# probability, see notebook 5.)

# %% tags=["nbval-ignore-output"]
thresholds = np.linspace(0, 0.99, 100)
curves = pd.DataFrame({run.name: metrics.f1_over_threshold(*run.on(common), thresholds) for run in runs})
gained = (curves.max() - curves.iloc[0]) / (1 - curves.iloc[0])  # share of what is possible
shown = [run for run in runs if gained[run.name] >= 0.25][:3] or runs[:1]
curves = curves[[run.name for run in shown]]
charts.f1_over_threshold(curves)

# %% [markdown]
# **Beware**: each threshold is chosen on the clips of the tables, so their F1 is optimistic, most of all where a curve has a narrow peak.
# Average precision (AP), which ranks all clips by the score of one class, and LWLRAP, which ranks all classes within one clip, need no
# threshold. To use a model, choose the threshold on clips that you do not report on.

# %% tags=["nbval-ignore-output"]
chosen = curves.apply(metrics.best_threshold)
pd.DataFrame({"threshold": chosen, "macro F1": curves.max()})

# %% [markdown]
# ## Tables 2 to 5: class by class
#
# | F1 in the paper | best | worst |
# | --- | --- | --- |
# | Deep CNN | Bass drum 0.97, Gurgling 0.94, Finger snapping 0.94, Harmonica 0.92, Hi-hat 0.91 | Chirp and tweet 0.17, Walk and footsteps 0.17, Squeak 0.20, Sink 0.25, Water tap 0.29 |
# | VGG19, transfer | Bass drum 0.94, Kids speaking 0.92, Harmonica 0.92, Hi-hat 0.92, Finger snapping 0.91 | Walk and footsteps 0.00, Squeak 0.18, Fill with liquid 0.27, Scissors 0.31, Sink 0.36 |
#
# Our five best per model, by F1, then LWLRAP (of equals, in alphabetical order). Mind the column `clips`: of four to seven clips, as in the
# stored outputs, one moves F1 by about 0.1.

# %% tags=["nbval-ignore-output"]
tables = {run.name: metrics.per_class_table(*run.on(common), run.classes, chosen[run.name]) for run in shown}
pd.concat({name: table[table["F1"] > 0].head() for name, table in tables.items()}).round(2)

# %% [markdown]
# The five worst with an F1 below 1:

# %% tags=["nbval-ignore-output"]
pd.concat({name: table[table["F1"] < 1].tail()[::-1] for name, table in tables.items()}).round(2)

# %% [markdown]
# LWLRAP of each class, the highest mean on top. Where markers stand one below the other, the models agree. F1 and LWLRAP find different
# faults. Where a clip's score for a wrong class is above that for its label, the label's LWLRAP falls; F1 falls only if one of the two is
# on the wrong side of the threshold.

# %%
charts.per_class(pd.DataFrame({name: table["LWLRAP"] for name, table in tables.items()}), "LWLRAP")

# %% [markdown]
# ## More clips to learn from
#
# From here on, we look at the run that was scored on the most clips: `best`, if it is there, since out of fold it scores all curated clips.

# %% tags=["nbval-ignore-output"]
run = max(runs, key=lambda run: len(run.validation))  # the first, and so highest-ranked, of several
print(f"{run.name}: {len(run.validation)} clips")

# %% [markdown]
# Would more clips help a class? If so, the dots tend to rise to the right. They show the average precision of each class over its number of
# curated clips; a larger dot stands for several classes, and the five lowest are named. But classes also differ in difficulty, and the mini
# set cannot tell, nor can most of the competition's curated set: there, classes are of nearly equal size.

# %% tags=["nbval-ignore-output"]
ap = metrics.per_class_table(run.targets, run.scores, run.classes, threshold=0.5)[["AP"]]
charts.ap_over_clips(ap.join(data.clips_per_class({"curated clips": kit.competition.curated})))

# %% [markdown]
# ## Most confused pairs
#
# The clips whose highest score is not one of their labels (a clip with several labels counts once for each):

# %% tags=["nbval-ignore-output"]
pairs = metrics.most_confused_pairs(run.targets, run.scores, run.classes).head(10)
names = pairs["label"] + " confused with " + pairs["confused with"]
charts.bars(pairs.set_index(names)["clips"], "Clips") if len(pairs) else "the highest score is one of its labels for every clip"

# %% [markdown]
# ## The worst clips
#
# The clips with the lowest LWLRAP, if below 1. The sound may be very short or buried in noise or, in real data, the label wrong or
# incomplete: listen before you tune. To correct a label, edit it in the data's table (for your own sounds, move the file or edit the CSV
# file, and make the dataset again), and train all models again. Each player has the first two seconds.

# %% tags=["nbval-ignore-output"]
worst = run.validation[["fname", "labels"]].assign(
    LWLRAP=[metrics.lwlrap(labels[None], some[None]) for labels, some in zip(run.targets, run.scores)],
    highest=[run.classes[i] for i in run.scores.argmax(axis=1)],
)
worst = worst[worst["LWLRAP"] < 1].sort_values("LWLRAP", kind="stable").head(3)
worst

# %% tags=["nbval-ignore-output"]
paths = kit.competition.curated.set_index("fname")["path"]
for clip in worst[worst["fname"].isin(paths.index)].itertuples():  # some may have been removed since
    samples = audio.load_clip(paths[clip.fname], kit.preset.mel)
    title = f"{plots.display_name(clip.labels)}: {clip.fname}, LWLRAP {clip.LWLRAP:.2f}"
    plots.tagged_clip(samples, run.validation[run.classes].loc[clip.Index], kit.preset.mel, title, clip.labels.split(","))
    display(plots.player(samples, kit.preset.mel))

# %% [markdown]
# Next: `08_submission` scores the test clips.
