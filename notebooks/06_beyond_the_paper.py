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
# The paper ends with what it would try next: augmentation, the noisy set, more of everything. Here is what that gives: `best`,
# the model of this kit that is meant to score. It obeys the competition's rules: no pretrained weights, no other data.
#
# **You get** each augmentation to see and to hear, the ladder of what each part gives, and `best`, trained fold by fold.
# **Reads** the cache of notebook 2; makes that of the noisy set. **Writes** a run to `work/runs`. **Takes** three and a half minutes with
# `quick` on two cores; with `full` 50 minutes for 885 clips and by arithmetic two and a half hours for the competition's 24,785; minutes
# on a GPU. Interrupted training resumes.
#
# **Alone in Colab?** Make what it reads first, in a new cell below `setup`:
# `!cd freesound-tagging-kit && python -m utils.run --data "{kit.competition.folder}" 02`

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

from utils import augment, charts, dataset, folds, mel, mel_cache, metrics, models, plots
from utils.config import as_table

competition, entry = kit.competition, models.MODELS["best"]
config = entry.config(kit.preset.name)
cache = mel_cache.load(competition.curated, kit.cache, "curated", kit.preset.mel)
curated = dataset.load_labelled(cache, competition.curated, competition.classes, kit.preset, kit.device)
as_table(config)

# %% [markdown]
# The network is the Deep CNN that notebook 3 trains with `quick`. Its stem makes it cheap: 58 million multiply-accumulates a crop, where
# one of half its width without a stem takes 210.
#
# ## Augmentation
#
# A training clip is never seen twice the same: a different 2 s of it each time, and with the probabilities above
#
# - **mixed in power** with another clip, up to 12 dB below it. Two sounds add in power, not in dB:
#   $10 \log_{10}(10^{a/10} + 10^{b/10})$. The mix has the labels of both.
# - **resized**: played at 0.75 to 1.33 times the tempo, scaled by up to 10% and moved by up to 6% along the mel axis.
# - with a band and a stretch of frames **masked** (SpecAugment).
#
# All of it is switched off for the last tenth of the steps, so that the network ends on sounds as they are.

# %%
examples = augment.examples(curated, config)
plots.spectrograms(examples, kit.preset.mel)

# %% [markdown]
# A spectrogram has no phase. The Griffin-Lim algorithm makes one up to fit, so that each can be heard:

# %% tags=["nbval-ignore-output"]
for name, x in examples.items():
    display(name, plots.player(mel.griffin_lim(x, kit.preset.mel), kit.preset.mel))

# %% [markdown]
# ## The optimiser
#
# Adam scales the step of each weight separately. [Muon](https://kellerjordan.github.io/posts/muon/) (2024) takes the weights of a convolution
# as one matrix, a row a filter, and makes the step nearly orthogonal: directions that few clips ask for move as far as those that most of
# them ask for. Below are the singular values of one layer's gradient, scaled to a norm of 1, and of the step that Muon makes of it. Compare
# how they fall, not how high they lie. Each step of Muon also shrinks the weights a little (weight decay).

# %%
import torch

from utils import muon, train

model = entry.build(len(competition.classes), kit.preset.name)
x, targets = map(torch.from_numpy, augment.example_batch(curated, config, config.batch_size))
train.bce(model(x), targets, config.activation).mean().backward()
gradient = model.blocks[1][0].weight.grad.flatten(1)
steps = {"gradient": gradient / gradient.norm(), "step of Muon": muon.orthogonal(gradient)}
charts.singular_values({name: torch.linalg.svdvals(matrix).numpy() for name, matrix in steps.items()})

# %% [markdown]
# ## The ladder
#
# What does each part give? Each row adds one to those above it. Here on one validation split, with `full` in 600 steps and with `quick` in
# 100, so the intervals are wide: where they overlap widely, as in the outputs stored here, do not trust the order. Augmentation pays in
# longer trainings: on the 562 recordings of the README, with 1,000 steps a fold, `random crops` has 0.875, `+ SpecAugment` 0.912 and
# `+ Muon` 0.946. `python -m tests.ablation` trains each part on all folds of your data.

# %% tags=["nbval-ignore-output"]
ladder = folds.ladder(curated, kit.preset, kit.runs / "ladder")
ladder

# %%
charts.intervals(ladder)

# %% [markdown]
# ## The noisy set
#
# Its labels were made by machine and are often wrong. So a model that has seen none of them is asked: the noisy clips whose labels it
# ranks above all other classes join the training. `quick` looks at the first 500 of them. On the recordings of the README they changed
# nothing that could be told apart; several teams gained by those of the competition.

# %% tags=["nbval-ignore-output"]
noisy = None  # best does without where the data have no noisy set
if len(competition.noisy):
    table = competition.noisy.head(kit.preset.max_noisy)
    noisy_cache = mel_cache.build(table, kit.cache, "noisy", kit.preset.mel)
    noisy = dataset.MelDataset(noisy_cache, noisy_cache.readable(table), competition.classes, kit.device)

# %% [markdown]
# ## `best`, fold by fold
#
# The curated clips are dealt into five folds, each class in equal shares. For each fold a model is trained on the other four, and
# goes on with those and the noisy clips that it agrees with. No stage of it has seen a clip of its fold.

# %% tags=["nbval-ignore-output"]
run = folds.fit(curated, noisy, kit.preset, kit.run_folder("best"))

# %% [markdown]
# So every curated clip is scored by a model that does not know it. The **out-of-fold LWLRAP**, with its 95% interval:

# %% tags=["nbval-ignore-output", "results"]
low, high = metrics.bootstrap_interval(run.targets, run.scores)
print(f"Best, {len(run.validation)} clips out of fold: LWLRAP {run.summary()['LWLRAP']:.3f} ({low:.3f} to {high:.3f})")

# %% tags=["nbval-ignore-output"]
metrics.by_number_of_labels(run.targets, run.scores)

# %% [markdown]
# How many noisy clips joined, fold by fold:

# %% tags=["nbval-ignore-output"]
folds.summary(run)

# %%
charts.learning_curves(folds.histories(run))

# %% [markdown]
# Where there is a noisy set, the curves jump where its clips join, after a third of the steps: there the learning rate starts anew, and the
# dip of the training loss before it is the first stage's last tenth, without augmentation. With
# `quick` a fold has 100 steps, no more than a row of the ladder, in two cycles of the learning rate, and `best` may be behind all of
# them: judge it with `full`.

# %% [markdown]
# Next: `07_evaluation` puts all runs side by side, and `08_submission` blends the folds by the geometric mean of their scores.
