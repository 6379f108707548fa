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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/06_beyond_the_paper.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/06_beyond_the_paper.ipynb)
#
# # 6. Beyond the paper
#
# The paper ends with ideas to try next, such as augmentation and the noisy set. `best`, the kit's model for a high score, uses both within
# the competition's rules: no pretrained weights, no other data.
#
# **You get** each augmentation to see and to hear, an ablation of the recipe, and `best`, trained fold by fold. **Reads** the cache of
# notebook 2 and builds that of the noisy set. **Writes** its runs to `work/runs`. **Takes** two to four minutes with `quick` on two cores.
# With `full`, the 885 recordings of the README take less than an hour, the competition's 24,785 clips an estimated two and a half hours (on
# an H100, minutes). Interrupted training resumes.
#
# **Opened from a badge?** First make what it reads, in a new cell below `setup`:
# `!cd freesound-tagging-kit && python -m utils.run --data "{kit.competition.folder}" --preset {kit.preset.name} 02`

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
from IPython.display import HTML, display

from utils import audio, augment, best, charts, dataset, mel, mel_cache, metrics, models, plots
from utils.config import as_table

competition, entry = kit.competition, models.MODELS["best"]
config = entry.config(kit.preset.name)
cache = mel_cache.load(competition.curated, kit.cache, "curated", kit.preset.mel)
curated = dataset.load_labeled(cache, competition.curated, competition.classes, kit.preset, kit.device)
as_table(config)

# %% [markdown]
# The network is the Deep CNN that notebook 3 trains with `quick`: 60 million multiply-accumulates (MACs) per crop.
#
# ## Augmentation
#
# A training clip is never the same twice: each time, a different 2 s are cropped and, with the probabilities above,
#
# - **mixed in power** (like [mixup](https://arxiv.org/abs/1710.09412), but with the full labels of both) with a crop of another clip, whose
#   peak is 0 to 12 dB lower; levels of $a$ and $b$ dB become $10 \log_{10}(10^{a/10} + 10^{b/10})$.
# - **resized** (time stretching and pitch shifting of the spectrogram): played at 0.75 to 1.33 times the tempo, scaled by up to 10% and
#   shifted by up to 6% along the mel axis.
# - **masked** by one frequency mask and one time mask, filled with the clip's mean level ([SpecAugment](https://arxiv.org/abs/1904.08779)).
# - **filtered**, as by another microphone or room: a gain of -12 to 12 dB that changes along the mel axis
#   ([FilterAugment](https://arxiv.org/abs/2110.03282)).
#
# All four are off for the last tenth of the steps. Here each is shown alone, the resized one as slow and shifted as high as possible, the
# filter's gain rising from -12 to 12 dB. Each panel is in dB relative to its own loudest point: where the filter makes that point quieter,
# higher frequencies look louder instead.

# %%
examples = augment.examples(curated, config)
plots.spectrograms(examples, kit.preset.mel)

# %% [markdown]
# Spectrograms have no phase. The Griffin-Lim algorithm estimates one to make each of them audible:

# %% tags=["nbval-ignore-output"]
for name, x in examples.items():
    display(HTML(name), plots.player(mel.griffin_lim(x, kit.preset.mel), kit.preset.mel))

# %% [markdown]
# ## The optimizer
#
# Adam scales the step of each weight separately; AdamW also shrinks the weights a little at each step (weight decay), as Muon does here.
# [Muon](https://kellerjordan.github.io/posts/muon/) (2024) treats the weights of a convolution as one matrix with a row per filter and
# makes each step nearly orthogonal: its singular values become nearly equal, so directions with a small gradient get steps as long as the
# others.
#
# Below are the singular values of one layer's gradient, scaled to a norm of 1, and of the step that Muon makes of it (in training, of its
# momentum). Compare how fast they fall, not how high they lie.

# %%
import torch

from utils import muon, train

model = entry.build(len(competition.classes), kit.preset.name)
x, targets = map(torch.from_numpy, augment.example_batch(curated, config, config.batch_size))
train.bce(model(x), targets, config.activation).mean().backward()
gradient = model.blocks[1].convolutions[0].weight.grad.flatten(1)
steps = {"gradient": gradient / gradient.norm(), "step of Muon": muon.orthogonal(gradient)}
charts.singular_values({name: torch.linalg.svdvals(matrix).numpy() for name, matrix in steps.items()})

# %% [markdown]
# ## Cumulative ablation
#
# What does each part give? Each row adds one to those above it; `+ Muon` replaces AdamW for the convolutions. All are trained for 600 steps
# with `full`, 100 with `quick`, and scored on one small validation split, so the intervals are wide. The gain over the row above is paired:
# measured on the same clips. Where its interval contains 0, the part cannot be said to help or to harm.

# %% tags=["nbval-ignore-output"]
ablation = best.ablation(curated, kit.preset, kit.run_folder("ablation"))
ablation.round(3)

# %%
charts.intervals(ablation)

# %% [markdown]
# In the stored outputs, all intervals of gains contain 0 but that of `+ Muon`, which begins just above it. One of five intervals that just
# misses 0 is weak evidence, and none shows what another seed would change. On the 562 recordings of the README, with 1,000 steps in each of
# five folds:
#
# | | LWLRAP | gain (95% interval) |
# | --- | --- | --- |
# | random crops | 0.894 | |
# | + mixing, resizing, SpecAugment | 0.916 | 0.022 (0.009 to 0.034) |
# | + Muon | 0.951 | 0.036 (0.024 to 0.048) |
# | + FilterAugment | 0.949 | -0.002 (-0.011 to 0.007) |
#
# Muon mainly saves steps: in an earlier version, `best` with AdamW and 6,000 steps came within 0.003 of that with Muon and 3,000 (-0.004 to
# 0.011). What SpecAugment alone gives is unclear. FilterAugment gains 0.020 on drum kits never heard, at the limit of what can be told
# (0.000 to 0.041, over 14 kits only; [all
# measurements](https://github.com/OWNER/freesound-tagging-kit/blob/main/tests/README.md#other-real-sounds)). `python -m tests.ablation`
# trains each part on all folds of your data, on the CPU.

# %% [markdown]
# ## The noisy set
#
# Its labels were made automatically and are often wrong, so a model trained only on curated clips decides: a noisy clip joins the training
# if that model ranks its labels above all other classes. `quick` considers only the first 500. On the recordings of the README, they made
# no measurable difference. The rule is [ebouteillon's](https://github.com/ebouteillon/freesound-audio-tagging-2019#results), who had, with
# a model trained on the noisy set before, 0.724 on the competition's Public leaderboard with the selected clips and 0.723 without.
# [hakubishin3](https://github.com/hakubishin3/kaggle_freesound2019) trained on all clips, then on the curated ones alone, and gained 0.027.
# ([utils/](https://github.com/OWNER/freesound-tagging-kit/blob/main/utils/README.md#modules-and-reference) shows how to train one network
# on the noisy set first, then on the curated one.)

# %% tags=["nbval-ignore-output"]
noisy = None  # without a noisy set, best trains on curated clips
if len(competition.noisy):
    table = competition.noisy.head(kit.preset.max_noisy)
    noisy_cache = mel_cache.build(table, kit.cache, "noisy", kit.preset.mel)
    noisy = dataset.MelDataset(noisy_cache, noisy_cache.readable(table), competition.classes, kit.device)

# %% [markdown]
# ## `best`, fold by fold
#
# The curated clips are split into five folds, stratified by class (or as a column `fold` says). For each fold, a model is trained on the
# other four, then further on these and the noisy clips that it agrees with. Neither stage sees a clip of the held-out fold. To try
# something else, change `config` (by `dataclasses.replace`, as in notebook 3), and train into another folder, such as
# `kit.run_folder("best_wide")`. In the same folder, other settings replace the run, and a change of the loss itself (`train.bce`) goes
# unnoticed: you get the old run.

# %% tags=["nbval-ignore-output"]
run = best.fit(curated, noisy, kit.preset, kit.run_folder("best"), config)  # a wider network: width=48

# %% [markdown]
# Each curated clip is thus scored by a model not trained on it. The **out-of-fold LWLRAP**, with its 95% interval, then by number of labels
# (few clips have several):

# %% tags=["nbval-ignore-output", "results"]
score = metrics.lwlrap_with_interval(run.targets, run.scores)
print(f"Best, {len(run.validation)} clips out of fold:", "LWLRAP {LWLRAP:.3f} ({low:.3f} to {high:.3f})".format(**score))

# %% tags=["nbval-ignore-output"]
metrics.by_number_of_labels(run.targets, run.scores)

# %% [markdown]
# Training clips and scores, fold by fold:

# %% tags=["nbval-ignore-output"]
best.summary(run)

# %% [markdown]
# Two of the noisy clips that fold 0 left out, if any. Is the label wrong, or the model? (In the stored outputs, first the label, for a
# knock; then the model, for the bass drum of notebook 1. If the table has a column `group`, notebook 10, clips of held-out groups are left
# out, too.)

# %% tags=["nbval-ignore-output"]
if noisy is not None:
    kept = run.folds()[0].train_clips["fname"]
    left_out = noisy.table[~(best.NOISY + noisy.table["fname"]).isin(kept)]
    for clip in left_out.head(2).itertuples():
        samples = audio.load_clip(clip.path, kit.preset.mel)
        plots.clip(samples, kit.preset.mel, f"left out: {plots.display_name(clip.labels)}?")
        display(plots.player(samples, kit.preset.mel))

# %%
charts.learning_curves(best.histories(run))

# %% [markdown]
# If there is a noisy set, its clips join at the vertical line, after a third of the steps. (The dotted curves are the training loss; low
# values of the first epochs are cut off.) The curves jump there because augmentation is on again and the learning rate schedule restarts;
# the dip in training loss before it is the last tenth of the first stage, without augmentation. With `quick`, a fold has 100 steps, no more
# than a row of the ablation, in two learning rate cycles: judge `best` with `full`.

# %% [markdown]
# Next: `07_evaluation` puts all runs side by side, and `08_submission` blends the folds by the geometric mean of their scores.
