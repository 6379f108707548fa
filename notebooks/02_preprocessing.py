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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/02_preprocessing.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/02_preprocessing.ipynb)
#
# # 2. From sound to spectrogram
#
# The paper's models see sound as an image: each clip becomes a log-mel spectrogram of 128 mel bands by 128 frames. Here one clip goes
# through every step; then the curated and test clips go into a cache.
#
# **You get** a plot of each step, and the cache. **Reads** the audio. **Writes** the cache to `work/cache`. **Takes** seconds on the mini
# set, minutes on the competition's data, and nothing the second time.

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
from utils import audio, mel, mel_cache, plots
from utils.config import as_table

settings = kit.preset.mel
as_table(settings)

# %% [markdown]
# The steps below explain most of these settings. `n_fft` and `hop_length` are in samples; `fmin` and `fmax`, in Hz, limit the mel bands;
# powers below `amin` count as `amin`. The paper specifies 44.1 kHz, 128 bands, 128 frames for 2 s, and the formula of the mel scale;
# `n_fft`, `fmin` and `fmax` are those of the competition's starter notebooks; `top_db`, `amin` and `trim_db` are librosa's defaults.
#
# ## Step 1: read
#
# Mono samples between -1 and 1, at 44,100 Hz. The example: of the first hundred clips, the one over 2.5 s, if there is any, that step 2
# shortens most.

# %%
from contextlib import suppress

samples, least = None, (True, 2)  # no clip yet; below, those over 2.5 s, of which trimming leaves least, come first
for row in kit.competition.curated.head(100).itertuples():
    with suppress(audio.UnreadableClip):  # the cache's report below lists them for all sets
        clip = audio.load_clip(row.path, settings)
        order = len(clip) <= 2.5 * settings.sample_rate, len(mel.trim(clip, settings)) / len(clip)
        if order < least:
            samples, least, label = clip, order, plots.display_name(row.labels)
if samples is None:
    raise ValueError(f"None of the first clips of {kit.competition.folder} can be read: check the files.")

# %% tags=["nbval-ignore-output"]
plots.waveforms({f"{label}, as recorded": samples}, settings)
plots.player(samples, settings, seconds=10)

# %% [markdown]
# ## Step 2: trim the silent ends
#
# The paper trims "the silent sections of the clip"; we read that as its two ends. An end is silent while the level stays below the dotted
# line, 60 dB (a millionth of the power) under the loudest moment. The shaded parts are removed.

# %%
import librosa
import numpy as np

trimmed = mel.trim(samples, settings)
_, kept = librosa.effects.trim(samples, top_db=settings.trim_db)
plots.trimming(samples, settings, kept)
print("the same as librosa's:", np.array_equal(trimmed, samples[slice(*kept)]))

# %% [markdown]
# ## Step 3: cut or zero-pad to 2 s
#
# An image network needs inputs of one size. The paper uses 2 s.

# %%
two_seconds = librosa.util.fix_length(trimmed, size=2 * settings.sample_rate)
plots.waveforms({"trimmed": trimmed, "cut or padded": two_seconds}, settings)

# %% [markdown]
# ## Step 4: Fourier transforms and mel bands
#
# Every 694 samples (`hop_length`), a Fourier transform of 2,560 samples (`n_fft`, 58 ms), faded in and out by a Hann window, gives the
# power at 1,281 frequencies: a **frame**.
#
# We hear equal differences of frequency as equal steps of pitch at low frequencies and equal ratios at high ones. The mel scale follows
# this: it is almost linear far below 700 Hz and almost logarithmic far above. The paper's formula, from a frequency $f$ in Hz to $m$ in
# mel, is HTK's:
#
# $$m = 2595 \log_{10}\left(1 + \frac{f}{700}\right)$$
#
# 128 triangular filters sum the power of a frame into mel bands. They are evenly spaced on the mel scale, so they become wider in Hz toward
# the top. All have nearly the same area (librosa's `norm="slaney"`), so the wider ones are lower. (The lowest cover only two to four of the
# frequencies, so their heights vary.)

# %%
mel.mel_filters(settings).shape

# %%
plots.mel_scale(settings)

# %% [markdown]
# ## Step 5: logarithm
#
# We hear equal ratios of power as roughly equal steps of loudness, so power becomes dB: ten times its decimal logarithm. What lies more
# than 80 dB (`top_db`) below the loudest point is raised to that level. 88,200 samples give 128 frames, one every 694 from the first. This
# is what the networks see; they first standardize it or normalize its peak (notebook 3).

# %%
log_mel = mel.log_mel(two_seconds, settings)
log_mel.shape

# %%
plots.clip(two_seconds, settings, label)

# %% [markdown]
# **What does the window's length do?** A longer one tells frequencies apart that are closer together, but smears events in time: a tick
# becomes as wide as the window, here 58 ms or, with four times as many samples, 232 ms.

# %%
from dataclasses import replace

windows = {f"n_fft = {n}": mel.log_mel(two_seconds, replace(settings, n_fft=n)) for n in (settings.n_fft, 4 * settings.n_fft)}
plots.spectrograms(windows, settings)

# %% [markdown]
# librosa's own calls give the same:

# %%
power = librosa.feature.melspectrogram(
    y=two_seconds, sr=settings.sample_rate, n_fft=settings.n_fft, hop_length=settings.hop_length, pad_mode="constant",
    n_mels=settings.n_mels, fmin=settings.fmin, fmax=settings.fmax, htk=True,
)
librosas = librosa.power_to_db(power, amin=settings.amin, top_db=settings.top_db)
print(f"greatest difference: {np.abs(log_mel - librosas).max():.2f} dB")

# %% [markdown]
# ## Every clip once: the cache
#
# The cache keeps whole clips, one after another in a single array, and a table of where each begins. The paper's input is then the first
# 128 frames of a clip, and a random **crop**, an excerpt of 2 s, is another 128. (Cut after the transform instead of before, the last two
# frames also contain what follows the 2 s. The 80 dB then count from the loudest point of the whole clip.) One call per set makes its
# cache, on all cores; called again, it reuses it. Notebook 6 makes and uses that of the noisy set.

# %% tags=["nbval-ignore-output"]
competition = kit.competition
sets = {"curated": competition.curated, "test": competition.test}
caches = {name: mel_cache.build(table, kit.cache, name, settings) for name, table in sets.items()}

# %% [markdown]
# Clips that cannot be read are left out of the cache and listed here. Notebook 3 stops if training clips are among them, unless the
# environment variable `FAT_DROP_UNREADABLE` is 1; notebook 8 gives scores to every test clip.

# %% tags=["nbval-ignore-output"]
import pandas as pd

report = pd.concat({name: cache.unreadable for name, cache in caches.items()}, names=["set"]).reset_index(level="set")
report if len(report) else "every clip can be read"

# %% [markdown]
# The array's shape, (frames, bands), and its type:

# %%
cache = caches["curated"]
cache.frames.shape, cache.frames.dtype

# %% [markdown]
# For each clip: its first frame in the array (`start`) and its number of frames (`length`). `pad_value`, in dB, 80 below its loudest point,
# is the level that pads it to the length of a crop. The hash of its samples keeps copies together when clips are split into training and
# validation (notebook 3).

# %%
cache.clips.head().round(1)

# %% [markdown]
# Next: `03_cnn` trains on it.
