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
# A network that tags a sound well may do so for reasons that nobody expects. Layer-wise relevance propagation tells which points of a
# spectrogram made the network say what it says; [Becker and others (2018)](https://arxiv.org/abs/1807.03418), the paper's [8], used it on
# spoken digits.
#
# **You get** pictures of what speaks for a label and against it, the same to hear, a test whether to believe it, and what the network
# listens for in each class. **Reads** the cache of notebook 2 and the best run that the method covers. **Writes** nothing. **Takes** a
# minute with the `quick` preset.
#
# **Alone in Colab?** Make what it reads first, in a new cell below `setup`:
# `!cd freesound-tagging-kit && python -m utils.run --data "{kit.competition.folder}" 02 03`

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
# The method is that of the package `zennit`, which is installed here where it is missing. On Kaggle that takes the internet.

# %% tags=["nbval-ignore-output"]
import importlib.util

if not importlib.util.find_spec("zennit"):
    os.system(f"{sys.executable} -m pip install --quiet zennit")

# %%
import pandas as pd
import torch
from IPython.display import display

from utils import audio, charts, explain, mel, mel_cache, plots
from utils.dataset import MelDataset
from utils.run_folder import find_runs

# %% [markdown]
# ## The network, and the clips
#
# Networks that are a chain of convolutions, pooling, ReLU and dense layers are covered. Those whose layers add or join several paths,
# ResNet-50 and Inception V3, are not. The run with the highest LWLRAP is taken; of the folds of `best` the first one.

# %% tags=["nbval-ignore-output"]
runs = explain.explainable(find_runs(kit.runs))
run, *others = [(run.folds() or [run])[0] for run in runs]
print(f"explained: {run.record['title']}; also covered: {'; '.join(other.record['title'] for other in others) or 'none'}")

# %% [markdown]
# It is asked about its validation clips, which it has not seen: about the first two seconds, once for each label. With the `quick`
# preset these are the first 64 clips.

# %% tags=["nbval-ignore-output"]
classes = kit.competition.classes
cache = mel_cache.load(kit.competition.curated, kit.cache, "curated", kit.preset.mel)
validation = run.validation[["fname", "labels"]].head(64 if kit.preset.name == "quick" else len(run.validation))
clips = MelDataset(cache, validation, classes, kit.device)
rows, labels = torch.nonzero(clips.targets, as_tuple=True)
x = clips.crops(rows, torch.zeros_like(rows), run.config.n_frames)
targets, labels = clips.targets[rows].to(x.device), labels.to(x.device)
print(f"{len(clips)} clips, {len(x)} labels to ask about")

# %% [markdown]
# ## From the output back to the input
#
# The label's logit, the network's output before the sigmoid, is a sum over the units of the layer before. The summand of each
# is its **relevance** $R$. From there on each layer hands the relevance of its units on to those before it, in proportion to what these had given: where $a_j$ is the output of a unit
# and $w_{jk}$ the weight with which unit $k$ took it,
#
# $$R_j = \sum_k \frac{a_j w_{jk}}{\sum_i a_i w_{ik}} R_k \quad\text{(dense layers)} \qquad
# R_j = \sum_k \frac{(a_j w_{jk})^+}{\sum_i (a_i w_{ik})^+} R_k \quad\text{(convolutions)}$$
#
# A small $\epsilon$ keeps the first denominator from 0. $(\cdot)^+$ is the positive part: the relevance of a convolution goes to what
# raised its output. The first convolution spreads it evenly over the points that its filter saw. Batch normalisation is merged into the
# convolution before it, maximum pooling hands all to the maximum, and the standardized spectrogram is where it ends.

# %% tags=["nbval-ignore-output"]
networks = run.models()
points, sums = explain.relevance(networks, x, labels)

# %% [markdown]
# Nothing may be added or lost on the way: the relevances of a spectrogram add up to the logit, less the bias of the output layer, which
# is the same for every clip. By how much do they miss it, at most?

# %%
missed = (points.sum(dim=(1, 2)) - sums).abs() / sums.abs().clamp(min=1)
print(f"within the tolerance of {explain.TOLERANCE}: {missed.max() < explain.TOLERANCE}")

# %% tags=["nbval-ignore-output", "results"]
print(f"relevance misses the logit by at most {missed.max():.1e} of it in {len(missed)} spectrograms")

# %% [markdown]
# ## Seen
#
# The label that leads the other classes by most, and the one that is furthest behind:

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    logits = torch.cat([networks[0](some) for some in x.split(explain.BATCH)])
other = logits.where(targets == 0, -torch.inf).max(dim=1)  # the likeliest class that is no label of the clip
lead = logits.gather(1, labels[:, None])[:, 0] - other.values
right, wrong = int(lead.argmax()), int(lead.argmin())
names = [[classes[labels[row]], classes[other.indices[row]], float(lead[row])] for row in (right, wrong)]
pd.DataFrame(names, index=["right", "wrong"], columns=["label", "likeliest other class", "lead of the logit"]).round(2)

# %% [markdown]
# Red points speak for the class in the title, blue ones against it. The number is what they add up to. First the clip that it gets right:
# its label, and a class that it does not have.

# %% tags=["nbval-ignore-output"]
def show(row, *asked):
    found, sums = explain.relevance(networks, x[[row] * len(asked)], torch.tensor([int(label) for label in asked]))
    titles = [f"for {plots.words(classes[label])}: {total:.1f}" for label, total in zip(asked, sums)]
    plots.relevance(x[row, 0].cpu().numpy(), dict(zip(titles, found.cpu().numpy())), kit.preset.mel)
    return found.cpu().numpy()


of_right = show(right, labels[right], other.indices[right])

# %% [markdown]
# Both look alike, for a convolution hands relevance on to all that raised it; red or blue comes from the last layer. Each is scaled by its
# own strongest points: compare the numbers, not the colours. The fine grid is the stride of the first convolution. Now the clip that it
# gets wrong: its label, and the class that it is taken for.

# %% tags=["nbval-ignore-output"]
of_wrong = show(wrong, labels[wrong], other.indices[wrong])

# %% [markdown]
# A stripe where a short clip ends says that the network also uses where the sound stops.
#
# A clip of two labels, asked for each. Where there is none, it is asked for its label and the likeliest other class.

# %% tags=["nbval-ignore-output"]
two = int(targets.sum(dim=1).argmax())
first, second = [*torch.nonzero(targets[two])[:, 0], other.indices[two]][:2]
of_two = show(two, first, second)

# %% [markdown]
# Their difference is the relevance of the difference of both logits, and tells them apart:

# %% tags=["nbval-ignore-output"]
rather = of_two[0] - of_two[1]
title = f"{plots.words(classes[first])} (red) or {plots.words(classes[second])} (blue)"
figure = plots.relevance(x[two, 0].cpu().numpy(), {title: rather}, kit.preset.mel)

# %% [markdown]
# ## Heard
#
# Relevance goes back through the mel filters and becomes a mask on the short-time Fourier transform: of what speaks for the label, the most
# relevant tenth of the points is kept whole, and the others in proportion to their relevance. The phase is the sound's own. Of the clip
# that it gets right: the sound, what speaks for its label, and the rest.

# %% tags=["nbval-ignore-output"]
def hear(row, points):
    path = kit.competition.curated.set_index("fname")["path"][clips.table["fname"][int(rows[row])]]
    samples = mel.trim(audio.load_clip(path, kit.preset.mel), kit.preset.mel)
    samples = samples[: (run.config.n_frames - 1) * kit.preset.mel.hop_length]
    return samples, *explain.listen(samples, points, kit.preset.mel)


for name, sound in zip(("the sound", "what speaks for its label", "the rest"), hear(right, of_right[0])):
    display(name, plots.player(sound, kit.preset.mel))

# %% [markdown]
# Of the clip of two labels: the sound, what speaks for the first one rather than the second, and the reverse.

# %% tags=["nbval-ignore-output"]
for name, sound in zip(("the sound", "the first", "the second"), (*hear(two, rather)[:2], hear(two, -rather)[1])):
    display(name, plots.player(sound, kit.preset.mel))

# %% [markdown]
# ## Put to the test
#
# A picture can please and be wrong. If relevance tells what the network needs, then the score falls without the most relevant points, and
# faster than without as many of the **loudest** ones, of those with the highest **gradient times input**, or of **random** ones. Points
# that are gone take the value of the clip's quietest one. On the right they go in squares of 4 x 4.

# %% tags=["nbval-ignore-output"]
def curves(run, points, x, labels, size):
    networks, generator = run.models(), torch.Generator().manual_seed(0)
    orders = {"most relevant": points, "loudest": x[:, 0]}
    orders["gradient times input"] = explain.gradient_times_input(networks, x, labels)
    orders["random"] = torch.rand(points.shape, generator=generator).to(x.device)
    return explain.deletion(networks, x, labels, orders, run.config.activation, size)


by_point, by_square = (curves(run, points, x, labels, size) for size in (1, 4))

# %% tags=["nbval-ignore-output"]
charts.deletion({"single points": by_point, "squares of 4 x 4 points": by_square})

# %% tags=["nbval-ignore-output", "results"]
print(f"{run.record['title']}: mean score of the labels with a tenth of the points gone")
pd.DataFrame({"single points": by_point.loc[0.1], "squares": by_square.loc[0.1]}).T

# %% [markdown]
# The curve that falls fastest names the points that the network needs most. In the outputs stored here, of the mini set, relevance is far
# ahead of chance, but no further than loudness, for there the loudest points are the sound and the rest is nearly silent. So here the test
# speaks for relevance no more than for loudness. Gradient times input is fast while few points are gone: it finds scattered points to
# which the network is most sensitive, as adversarial examples do; gone in squares, these matter less. The next best run, and its first 32
# labels:

# %% tags=["nbval-ignore-output"]
for next_best in others[:1]:
    print(next_best.record["title"])
    theirs, _ = explain.relevance(next_best.models(), x[:32], labels[:32])
    display(curves(next_best, theirs, x[:32], labels[:32], 1))

# %% [markdown]
# ## What it listens for
#
# One row per class, each on its own scale: where along frequency the relevance for it lies, on average over its validation clips and over
# time. Compare with notebook 1's picture of each class: in the mini set, a bass drum has its body
# below 220 Hz, and a cricket is at 3.5 to 5.5 kHz.

# %% tags=["nbval-ignore-output"]
charts.relevance_per_class(explain.profile(points, labels, classes), kit.preset.mel)

# %% [markdown]
# Of a sound of your own, `python -m utils.predict FILE --explain PICTURE.png` draws what speaks for the first answer.
#
# Next: `10_your_sounds` tags a folder of yours.
