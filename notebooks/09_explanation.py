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
# A network can tag a sound correctly for reasons that nobody expects. Layer-wise relevance propagation is meant to show which points of a
# spectrogram (its time-frequency bins) led to its answer; [Becker et al. (2018)](https://arxiv.org/abs/1807.03418), the paper's [8],
# applied it to spoken digits.
#
# **You get** plots of what supports and contradicts a label, the same to hear, a test of whether to trust them, and what the network
# listens for in each class. **Reads** the cache of notebook 2 and the best run that the method covers. **Writes** nothing. **Takes** a
# minute with the `quick` preset.
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
# The package `zennit` implements the method and is installed here if it is missing. On Kaggle, this needs the internet.

# %% tags=["nbval-ignore-output"]
import importlib.util
import subprocess

if not importlib.util.find_spec("zennit"):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "zennit"])

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, display

from utils import audio, augment, charts, explain, mel, mel_cache, plots
from utils.dataset import MelDataset
from utils.runs import find_runs

# %% [markdown]
# ## The network and the clips
#
# The kit can explain networks of convolutions, pooling, ReLU and dense layers, and the residual blocks of the Deep CNN, but not ResNet-50
# or Inception V3. The run with the highest LWLRAP is explained; for `best`, its first fold.

# %% tags=["nbval-ignore-output"]
runs = explain.explainable(find_runs(kit.runs))
run, *others = [(run.folds() or [run])[0] for run in runs]
print(f"explained: {runs[0].name}; also covered: {', '.join(other.name for other in runs[1:]) or 'none'}")

# %% [markdown]
# The network is asked about the first two seconds of its validation clips (at most 64 with `quick`), on which it was not trained, once per
# label. A shorter clip is padded as in scoring.

# %% tags=["nbval-ignore-output"]
classes = kit.competition.classes
cache = mel_cache.load(kit.competition.curated, kit.cache, "curated", kit.preset.mel)


def ask(run, most):
    there = run.validation[run.validation["fname"].isin(cache.clips["fname"])]  # some may have been removed since
    clips = MelDataset(cache, there[["fname", "labels"]].head(most), classes, kit.device)
    rows, labels = torch.nonzero(clips.targets, as_tuple=True)
    _, offsets = augment.tta_crops(clips.lengths[rows], replace(run.config, test_crops=1))
    x = clips.crops(rows, offsets, run.config.n_frames)
    return clips, rows, offsets, x, labels.to(x.device)


# %% tags=["nbval-ignore-output"]
clips, rows, offsets, x, labels = ask(run, most=64 if kit.preset.name == "quick" else len(run.validation))
targets = clips.targets[rows].to(x.device)
print(f"{len(clips)} clips, {len(x)} labels to ask about")

# %% [markdown]
# ## From the output back to the input
#
# The label's logit, less its bias, is a sum over the units of the layer before; each unit's term is its **relevance** $R$. From there, each
# layer passes the relevance of its units back, in proportion to what the units before contributed. With $a_j$ the output of unit $j$ and
# $w_{jk}$ its weight in unit $k$,
#
# $$R_j = \sum_k \frac{a_j w_{jk}}{\sum_i a_i w_{ik}} R_k \quad\text{(dense layers)} \qquad
# R_j = \sum_k \frac{(a_j w_{jk})^+}{\sum_i (a_i w_{ik})^+} R_k \quad\text{(convolutions)}$$
#
# These are the $\epsilon$ rule (a small $\epsilon$ keeps the denominator away from 0) and the $z^+$ rule, whose positive part $(\cdot)^+$
# sends relevance to what raised the output. The first convolution spreads relevance evenly over the points that its filter saw (flat rule);
# `utils/explain.py` has the rules of the other layers. Propagation ends at the normalized spectrogram.

# %% tags=["nbval-ignore-output"]
networks = run.models()
points, sums = explain.relevance(networks, x, labels)

# %% [markdown]
# No relevance may be added or lost on the way (conservation): over a spectrogram, it must sum to the logit minus the bias of the output
# layer. By how much is it off? (The kit stops above 5%.)

# %% tags=["nbval-ignore-output", "results"]
missed = explain.conservation_error(points, sums)
print(f"{len(missed)} spectrograms: the sum is off by at most {missed.max():.1%}")

# %% [markdown]
# ## Seeing relevance
#
# The label furthest ahead of the other classes, and the one furthest behind:

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    logits = torch.cat([networks[0](some) for some in x.split(explain.BATCH)])
runner_up = logits.where(targets == 0, -torch.inf).max(dim=1)  # the likeliest class that is not a label
margin = logits.gather(1, labels[:, None])[:, 0] - runner_up.values
ahead, behind = int(margin.argmax()), int(margin.argmin())
names = [[classes[labels[row]], classes[runner_up.indices[row]], float(margin[row])] for row in (ahead, behind)]
pd.DataFrame(names, index=["furthest ahead", "furthest behind"], columns=["label", "runner-up", "logit margin"]).round(2)

# %% [markdown]
# Red points support the class in the title, blue ones contradict it; the number is their sum (the logit, less its bias, which the margin
# above contains), negative if the sound contradicts the class. The last panel is the relevance for the first class minus that for the
# second: red favors the first, blue the second. First, the label furthest ahead and its runner-up:

# %%
def show(row, first, second):
    asked = torch.tensor([int(first), int(second)])
    found, sums = explain.relevance(networks, x[[row, row]], asked)
    found = found.cpu().numpy()
    kinds = ["label" if targets[row, label] else "runner-up" for label in asked]
    titles = [f"{plots.display_name(classes[i])}\n({kind}): {total:.1f}" for i, kind, total in zip(asked, kinds, sums)]
    difference = found[0] - found[1]
    titles.append(f"difference: {float(sums[0] - sums[1]):.1f}")
    plots.relevance(x[row, 0].cpu().numpy(), dict(zip(titles, [*found, difference])), kit.preset.mel)
    return found[0], difference

# %% tags=["nbval-ignore-output"]
supports, _ = show(ahead, labels[ahead], runner_up.indices[ahead])

# %% [markdown]
# Both panels mark much the same places, because convolutions pass relevance to all that raised their output; only the last layer decides
# between red and blue. Each panel is scaled by its strongest points: compare the numbers, not the colors. The fine grid is the stride of
# the first convolution.
#
# Now the label furthest behind and its runner-up, which scores higher if the margin is negative. (For another label, run
# `_ = show(0, labels[0], runner_up.indices[0])`.)

# %% tags=["nbval-ignore-output"]
_ = show(behind, labels[behind], runner_up.indices[behind])

# %% [markdown]
# A stripe where a short clip begins or ends suggests that the network also uses where the sound starts or stops.
#
# A clip with two labels or, if there is none, a clip's label and its runner-up. Red in both panels is no contradiction: the difference
# shows which points favor which.

# %% tags=["nbval-ignore-output"]
two = int(targets.sum(dim=1).argmax())
first, second = [*torch.nonzero(targets[two])[:, 0], runner_up.indices[two]][:2]
_, difference = show(two, first, second)

# %% [markdown]
# ## Hearing relevance
#
# The mel filters turn the relevance into a mask on the Fourier transforms of the frames (notebook 2), which then become sound again. The
# most relevant tenth of the points keeps its level, other points that support the label are scaled by their relevance, and points that
# contradict it are removed. For the clip whose label is furthest ahead: the sound, what supports its label, and the rest.

# %% tags=["nbval-ignore-output"]
def hear(row, points):
    path = kit.competition.curated.set_index("fname")["path"][clips.table["fname"][int(rows[row])]]
    samples = mel.trim(audio.load_clip(path, kit.preset.mel), kit.preset.mel)
    hop_length = kit.preset.mel.hop_length
    samples = np.pad(samples, (-int(offsets[row]) * hop_length, 0))[: (run.config.n_frames - 1) * hop_length]
    return samples, *explain.sonify(samples, points, kit.preset.mel)


for name, sound in zip(("the sound", "what supports its label", "the rest"), hear(ahead, supports)):
    display(HTML(name), plots.player(sound, kit.preset.mel))

# %% [markdown]
# For the clip with two labels: the sound, what supports the first rather than the second, and the reverse.

# %% tags=["nbval-ignore-output"]
a, b = (plots.display_name(classes[int(i)]) for i in (first, second))
titles = "the sound", f"{a} rather than {b}", f"{b} rather than {a}"
for name, sound in zip(titles, (*hear(two, difference)[:2], hear(two, -difference)[1])):
    display(HTML(name), plots.player(sound, kit.preset.mel))

# %% [markdown]
# ## Testing relevance
#
# A plausible plot can be wrong. The deletion test (pixel flipping) deletes the most relevant points: if the network needs them, the score
# falls. It should fall faster than after deleting as many
#
# - of the **loudest** points,
# - of those with the highest **gradient times input**: the logit's derivative with respect to the point, times its level above the clip's
#   quietest point, to first order what deletion takes from the logit,
# - or of **random** ones.
#
# Deleted points take the value of the clip's quietest one. Only the loudest stays, since peak normalization measures all others from it. On
# the right, squares of 4 x 4 are deleted.

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
# The lower a curve, the more the network needs those points. In the stored outputs, relevance beats random, but loudness beats relevance:
# with a tenth deleted, by 0.09 for single points and by 0.06 in squares (54 labels, one network, no intervals). Gradient times input, which
# knows what deletion puts in place of a point, is ahead of relevance for single points and behind it in squares. So here the test does not
# confirm relevance. (Even random deletion lowers the score: the network was never trained on such holes.)
#
# The run with the next highest LWLRAP, if there is one, on its own first 32 validation clips, deleting single points: in the stored
# outputs, relevance is ahead of loudness and level with gradient times input. On so few clips, the test is a first look.

# %% tags=["nbval-ignore-output"]
for next_best in others[:1]:
    print(f"{next_best.record['title']}: mean score of the labels, single points deleted")
    *_, their_x, their_labels = ask(next_best, most=32)
    theirs, _ = explain.relevance(next_best.models(), their_x, their_labels)
    display(curves(next_best, theirs, their_x, their_labels, 1))

# %% [markdown]
# ## What it listens for
#
# Each row, on its own scale, shows where along the frequency axis the relevance for a class lies, averaged over its validation clips and
# time. Blue contradicts the class; the rows are smoothed over four bands. In the mini set, a bass drum's tone lies below 220 Hz, a cricket
# at 3.5 to 5.5 kHz, and a plucked string begins with white noise, up to 20 kHz (`utils/mini.py`). Some of it does not fit: that below 100
# Hz for the knock, the tick-tock and the glockenspiel (which got some from a bass drum's beats above). It may come from clips with two
# labels, or from background or silence that the network counts on. It may also come from the border: convolutions see zeros beyond it,
# which are 40 dB below the peak in the peak-normalized spectrogram.

# %% tags=["nbval-ignore-output"]
plots.relevance_per_class(explain.relevance_over_frequency(points, labels, classes), kit.preset.mel)

# %% [markdown]
# For a sound of your own, `python -m utils.predict FILE --explain PICTURE.png` plots what supports the top class.
#
# Next: `10_your_sounds` tags a folder of yours.
