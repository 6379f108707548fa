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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/03_cnn.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/03_cnn.ipynb)
#
# # 3. The Deep CNN
#
# The paper's best model is its own small network of convolutions and pooling, trained from scratch on four fifths of the curated clips,
# evaluated on the rest. The preset `full` is our reading of it. The outputs stored here are of `quick`, a smaller network trained in
# another way (on a GPU, set `preset = "quick"` below to get it); each section says where the two differ.
#
# **You get** the network layer by layer, its learning curves and first predictions. **Reads** the cache of notebook 2. **Writes** a run
# (weights, history, validation scores, settings) to `work/runs`. **Takes** one to four minutes with the `quick` preset on two cores.
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
from utils import audio, augment, charts, dataset, launch, mel_cache, models, plots
from utils.config import NO_AUGMENTATION, as_table

entry = models.MODELS["deep_cnn"]
config = entry.config(kit.preset.name)

# %% [markdown]
# ## The clips
#
# The validation split is a random fifth of the clips, stratified by class. Label corrections are applied.

# %%
competition = kit.competition
cache = mel_cache.load(competition.curated, kit.cache, "curated", kit.preset.mel)
train_set, validation_set = dataset.load_split(cache, competition.curated, competition.classes, kit.preset, kit.device)
print(f"{len(train_set)} training and {len(validation_set)} validation clips")

# %% [markdown]
# With the `full` preset the model sees the first 2 s of each clip, with `quick` a different 2 s each time. Shorter clips are padded with
# silence: `full` at the end, `quick` on both sides. Six clips without augmentation:

# %%
import dataclasses

plain = dataclasses.replace(config, **NO_AUGMENTATION)
plots.batch(*augment.example_batch(train_set, plain, 6), competition.classes, kit.preset.mel)

# %% [markdown]
# The same clips as `quick` trains on them. Some are mixed with another and get its labels too, some are resized, some have a frequency mask
# and a time mask at the mean level (SpecAugment). All are filtered last, which also colors the masks. Notebook 6 shows each augmentation
# alone. `full`, like the paper, uses none.

# %%
plots.batch(*augment.example_batch(train_set, config, 6), competition.classes, kit.preset.mel)

# %% [markdown]
# ## The network
#
# The paper's text gives neither depth nor widths. (It also has a drawing of the network, but our copy lacks the figures.) The blocks and
# the pooling are those of a popular starter notebook of the competition, mhiro2's [Simple 2D-CNN Classifier with
# PyTorch](https://www.kaggle.com/code/mhiro2/simple-2d-cnn-classifier-with-pytorch): four blocks of two 3x3 convolutions, each with batch
# normalization (each channel is brought to mean 0 and standard deviation 1 over the batch) and ReLU, and average pooling. Global pooling
# (mean over time, maximum over frequency), dropout (in training, a random fifth of the values is set to 0) and a dense layer give each
# class a logit, the score before softmax or sigmoid. `full` has 64 channels in the first block and twice as many in each further one.
#
# `quick` computes a fiftieth of that per crop: a stem first shrinks the spectrogram to a sixteenth of its area, and the blocks are half as
# wide, the last without pooling. They are residual, as in ResNet: a block's input is added, through a 1x1 convolution (`shortcut`), before
# its last ReLU. And the input is peak-normalized (the loudest point gets a fixed value) instead of standardized (mean 0, standard deviation
# 1): silence around a short sound then does not change how it is scaled.
#
# Channels x mel bands x frames after each stage (not to scale: one more sheet is twice as many channels):

# %%
import torch

model = entry.build(len(competition.classes), kit.preset.name).eval()

# %%
stages = [("stem", model.stem)] if model.config["stem"] else []
stages += [(f"block {i}", block) for i, block in enumerate(model.blocks, 1)]
x = torch.zeros(1, 1, kit.preset.mel.n_mels, config.n_frames)
shapes = {"input": x.shape[1:]}
for name, stage in stages:
    x = stage(x)
    shapes[name] = x.shape[1:]
x = x.mean(dim=3).amax(dim=2)
shapes |= {"pooled": x.shape[1:], "dense": model.dense(x).shape[1:]}
charts.architecture(shapes)

# %% [markdown]
# The layers with weights (`blocks.0` is block 1); batch normalization adds a few parameters. `python -m tests.ablation` compares variants
# of the network on your data.

# %%
models.layers(model).drop(columns="trains")

# %%
print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")

# %% [markdown]
# ## The loss
#
# Binary cross-entropy treats each of the $C$ classes separately: $y_c$ is one if the clip has label $c$ and zero if not, $p_c$ the
# probability of class $c$.
#
# $$BCE = -\frac{1}{C}\sum_{c=1}^{C} \left[ y_c \log p_c + (1 - y_c) \log(1 - p_c) \right]$$
#
# The paper computes the probabilities from the logits $z_c$ with a softmax, $p_c = e^{z_c} / \sum_k e^{z_k}$: they sum to one, so two
# labels of a clip cannot both get more than a half. With a sigmoid, $p_c = 1 / (1 + e^{-z_c})$, as in `quick`, each class is independent;
# `full` keeps the softmax. To try the other one with `quick`, run `config = dataclasses.replace(config, activation="softmax")` in a new
# cell below this one, and train below into `kit.run_folder("deep_cnn_softmax")`: notebook 7 then shows both.

# %% [markdown]
# ## Training
#
# Training updates the weights in **steps**, each on a batch of clips; an **epoch** is one pass through all training clips. `full` uses
# Adam, as in the paper, at a constant learning rate (our choice). `quick` uses Muon for the convolutions (notebook 6) and AdamW for the
# rest; the learning rate rises over the first tenth of the steps (warm-up), then falls to zero along a cosine.
#
# All settings; `utils/config.py` explains those that the text does not. `max_steps` prevails over `min_steps`, and both over `epochs`: with
# `quick`, 600 steps of the mini set are 100 epochs.

# %%
as_table(config)

# %% [markdown]
# Two metrics: **LWLRAP**, the competition's, is 1 if every clip's labels rank above all other classes (notebook 7 works it out by hand);
# **top-5** is the share of clips whose first label is among the five highest scores.
#
# During training, a validation clip is scored by its first 2 s; at the end, with `quick`, by up to eight crops spread over the clip,
# averaged, the louder ones with more weight (test-time augmentation).

# %% tags=["nbval-ignore-output"]
run = launch.fit(model, train_set, validation_set, config, kit.run_folder("deep_cnn"), entry.title)
run.history.dropna().set_index("epoch").tail()  # the epochs after which it was validated

# %% [markdown]
# With `quick`, after the first epochs, the training loss lies above the validation loss, because mixed and masked clips are harder. The
# last tenth, without augmentation, compares them more fairly (training still has dropout): there the training loss drops below the
# validation loss. The plots of LWLRAP and top-5 cut off the low values of the first epochs.

# %%
charts.learning_curves({run.name: run.history})

# %% [markdown]
# What counts is the **last** epoch. The one with the highest LWLRAP would be chosen by the very clips that it is scored on, which can only
# flatter it. By all its crops, the finished model reaches:

# %% tags=["nbval-ignore-output", "results"]
summary = run.summary()
print(f"{entry.title}, {len(run.validation)} validation clips: LWLRAP {summary['LWLRAP']:.3f}, top-5 {summary['top-5']:.1%}")

# %% [markdown]
# ## A first look
#
# A validation clip, with several labels if there is one, and the five classes with the highest scores. The player has its first two
# seconds.

# %% tags=["nbval-ignore-output"]
row = int(validation_set.targets.sum(dim=1).argmax())
clip = validation_set.table.iloc[row]
samples, scores = audio.load_clip(clip["path"], kit.preset.mel), run.validation[run.classes].iloc[row]
plots.tagged_clip(samples, scores, kit.preset.mel, plots.display_name(clip["labels"]), clip["labels"].split(","))
plots.player(samples, kit.preset.mel)

# %% [markdown]
# What do the first filters respond to? Here is the output of the network's first stage (`quick`: the stem; `full`: block 1) for the
# beginning of this clip: the channels with the highest values, each white at its own highest. Which ones mark onsets, which steady tones?
# (One that is almost black is highest in a few points at the border.)

# %%
[network] = run.models()
seen = []  # the stage's output
first = network.stem if network.config["stem"] else network.blocks[0]
first.register_forward_hook(lambda module, inputs, output: seen.append(output))
with torch.no_grad():
    network.eval()(validation_set.crops(torch.tensor([row]), torch.tensor([0]), config.n_frames).cpu())
plots.feature_maps(seen[0][0].numpy(), config.n_frames, kit.preset.mel)

# %% [markdown]
# Next: `04_vgg19` asks whether a network trained on photographs does better.
