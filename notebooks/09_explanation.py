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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/09_explanation.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/09_explanation.ipynb)
#
# # 9. Why does it say so?
#
# A network that tags a sound well may do so for reasons that nobody expects. Layer-wise relevance propagation, as the paper's [8] used it
# on spectrograms, tells which points of a spectrogram made the network say what it says.
#
# **You get** pictures of what speaks for a label and against it, the same to hear, a test whether to believe it, and what the network listens
# for in each class. **Reads** the cache of notebook 2 and the best run that the method covers. **Writes** nothing. **Takes** a minute on a CPU.

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

# %% [markdown]
# The method is that of the package `zennit`, which is installed here where it is missing. On Kaggle that takes the internet; if it fails,
# the remedy is `pip install zennit`.

# %% tags=["nbval-ignore-output"]
import importlib.util

if not importlib.util.find_spec("zennit"):
    os.system(f"{sys.executable} -m pip install --quiet zennit")

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from utils import audio, explain, mel, plots
from utils.dataset import MelDataset
from utils.run_folder import find_runs

# %% [markdown]
# ## The network, and the clips
#
# Networks that are a chain of convolutions, pooling, ReLU and dense layers are covered. Those whose layers add or join several paths, ResNet-50
# and Inception V3, are not. Of the folds of `best`, the first is taken: its validation clips are those that it has not seen.

# %% tags=["nbval-ignore-output"]
runs = explain.explainable(find_runs(kit.runs))
run, *others = [(run.folds() or [run])[0] for run in runs]
print(f"explained: {run.record['title']}; also covered: {[other.record['title'] for other in others]}")

# %% [markdown]
# Every validation clip is looked at as often as it has labels, by its first two seconds. With the `quick` preset these are the first 64 clips.

# %% tags=["nbval-ignore-output"]
classes = kit.competition.classes
cache = mel.load_cache(kit.competition.curated, kit.cache, "curated", kit.preset.mel)
validation = run.validation[["fname", "labels"]].head(64 if kit.preset.name == "quick" else None)
clips = MelDataset(cache, validation, classes, kit.device)
rows, labels = torch.nonzero(clips.targets, as_tuple=True)
x = clips.crops(rows, torch.zeros_like(rows), run.config.n_frames)
len(clips), tuple(x.shape)

# %% [markdown]
# ## From the output back to the input
#
# The label's logit is a sum over the units before the output. Each gets its own summand as its **relevance** $R$, and each layer hands the relevance
# of its units on to those before it, in proportion to what these had given. Where $a_j$ is a unit's output and $w_{jk}$ the weight
# with which unit $k$ took it,
#
# $$R_j = \sum_k \frac{a_j w_{jk}}{\sum_i a_i w_{ik}} R_k \quad\text{(dense layers)} \qquad
# R_j = \sum_k \frac{(a_j w_{jk})^+}{\sum_i (a_i w_{ik})^+} R_k \quad\text{(convolutions)}$$
#
# A small $\epsilon$ keeps the first denominator from 0, and $(\cdot)^+$ is the positive part: a convolution's relevance goes to what raised its
# output. Batch normalisation is merged into the convolution before it, maximum pooling hands all to the maximum, the standardized input is the end.

# %% tags=["nbval-ignore-output"]
networks = run.models()
points, sums = explain.relevance(networks, x, labels)
tuple(points.shape)

# %% [markdown]
# Nothing may be added or lost on the way: the relevances of a spectrogram add up to the logit, less the bias of the output layer, which no clip has
# a part in. How far do they miss it, at most?

# %%
missed = (points.sum(dim=(1, 2)) - sums).abs() / sums.abs().clamp(min=1)
print("within the tolerance of", explain.TOLERANCE, bool(missed.max() < explain.TOLERANCE))

# %% tags=["nbval-ignore-output", "results"]
print(f"relevance misses the logit by at most {missed.max():.1e} of it in {len(missed)} spectrograms")

# %% [markdown]
# ## Seen
#
# The label that is recognised best, and the one that is missed most with the class that is taken for it. Red points speak
# for the class in the title, blue ones against it.

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    logits = networks[0](x)
likeliest = logits.where(clips.targets.to(x.device)[rows] == 0, -torch.inf).argmax(dim=1)  # of the classes that are no labels
lead = logits.gather(1, torch.stack([labels.to(x.device), likeliest], dim=1)) @ torch.tensor([1.0, -1.0], device=x.device)
right, wrong = int(lead.argmax()), int(lead.argmin())
pd.DataFrame({"label": [classes[labels[i]] for i in (right, wrong)], "likeliest other class": [classes[likeliest[i]] for i in (right, wrong)],
              "lead of the logit": lead[[right, wrong]].cpu()}, index=["right", "wrong"]).round(2)

# %% tags=["nbval-ignore-output"]
def show(row, *asked):
    found = explain.relevance(networks, x[[row] * len(asked)], torch.tensor([int(label) for label in asked]))
    titles = [f"for {plots.words(classes[label])}: {total:.1f}" for label, total in zip(asked, found[1])]
    plots.relevance(x[row, 0].cpu().numpy(), dict(zip(titles, found[0].cpu().numpy())), kit.preset.mel)
    return found[0].cpu().numpy()


of_right = show(right, labels[right], likeliest[right])

# %% [markdown]
# The number is the sum of the relevances. The second row asks for a class that the clip has not: much in it speaks against. And where the network is wrong:

# %% tags=["nbval-ignore-output"]
of_wrong = show(wrong, labels[wrong], likeliest[wrong])

# %% [markdown]
# A clip of two labels, where there is one, asked for each of them:

# %% tags=["nbval-ignore-output"]
two = int(clips.targets.sum(dim=1).argmax())  # the clip with most labels
two = int(torch.nonzero(rows == two)[0])
asked = torch.nonzero(clips.targets[rows[two]])[:2, 0]
of_two = show(two, *asked)

# %% [markdown]
# ## Heard
#
# Relevance goes back through the mel filters and becomes a mask on the short-time Fourier transform: of what speaks for the label, the most
# relevant tenth stays as it is, and less relevant points in proportion. The phase is the sound's own. First the right clip: the
# sound, what speaks for its label, and the rest of it.

# %% tags=["nbval-ignore-output"]
def hear(row, points):
    path = kit.competition.curated.set_index("fname")["path"][clips.table["fname"][int(rows[row])]]
    samples = mel.trim(audio.load_clip(path, kit.preset.mel), kit.preset.mel)
    samples = samples[: (run.config.n_frames - 1) * kit.preset.mel.hop_length]
    return samples, *explain.listen(samples, points, kit.preset.mel)


for sound in hear(right, of_right[0]):
    display(plots.player(sound, kit.preset.mel))

# %% [markdown]
# Now the clip of two labels: the sound, then what speaks for each label.

# %% tags=["nbval-ignore-output"]
for sound in [hear(two, of_two[0])[0]] + [hear(two, of_label)[1] for of_label in of_two]:
    display(plots.player(sound, kit.preset.mel))

# %% [markdown]
# ## Proved
#
# A picture can please and be wrong. If relevance tells what the network needs, then without the most relevant points the score must fall, and faster than
# without as many of the **loudest**, of those with the highest **gradient times input**, or of **random** ones. Points that are gone
# take the value of the clip's quietest. On the right they go in squares of 4 x 4.

# %% tags=["nbval-ignore-output"]
def curves(run, points, x, labels, size):
    networks = run.models()
    orders = {"most relevant": points, "loudest": x[:, 0]}
    orders["gradient times input"] = explain.gradient_times_input(networks, x, labels)
    orders["random"] = torch.rand(points.shape, generator=torch.Generator().manual_seed(0)).to(x.device)
    return explain.deletion(networks, x, labels, orders, run.config.activation, size)


by_point, by_square = (curves(run, points, x, labels, size) for size in (1, 4))

# %% tags=["nbval-ignore-output"]
plots.deletion({"single points": by_point, "squares of 4 x 4 points": by_square})

# %% tags=["nbval-ignore-output", "results"]
print(f"{run.record['title']}: mean score of the labels with a tenth gone")
pd.DataFrame({"single points": by_point.loc[0.1], "squares": by_square.loc[0.1]}).round(3).T

# %% [markdown]
# It does not hold everywhere. When few single points go, the gradient is faster: it finds scattered points that the network is most sensitive to,
# as adversarial examples do, but which are no part of the sound that one could hear. The mini set is hard on the method
# in another way: before silence, the loudest points are the sound. And not for every network is relevance the better guide. Of the next best one:

# %% tags=["nbval-ignore-output"]
if others:
    other, some = others[0], slice(0, 32)
    of_other, _ = explain.relevance(other.models(), x[some], labels[some])
    print(other.record["title"])
    display(curves(other, of_other, x[some], labels[some], 1).round(3))

# %% [markdown]
# ## What it listens for
#
# One line a class: where along frequency the relevance for it lies, on average over its validation clips and over time.

# %% tags=["nbval-ignore-output"]
plots.relevance_per_class(explain.profile(points, labels, classes), kit.preset.mel)

# %% [markdown]
# The same for a sound of your own, from a shell: `python -m utils.predict FILE --explain PICTURE.png` draws what speaks for the first answer.
