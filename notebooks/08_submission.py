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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/freesound-tagging-kit/blob/main/notebooks/08_submission.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/freesound-tagging-kit/blob/main/notebooks/08_submission.ipynb)
#
# # 8. The submission
#
# The test clips get a score for each class from one model, or from several averaged.
#
# **You get** a checked `submission.csv`. **Reads** the runs of notebooks 3 and 4, and the test cache of notebook 2, which it makes if the test
# clips are others by now, as in the second stage of the competition.
# **Writes** `submissions/submission.csv` and, beside it, a json of what made it. **Takes** seconds with the Deep CNN.

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

# %% tags=["nbval-ignore-output"]
from utils import audio, mel, plots, submission, train
from utils.dataset import MelDataset
from utils.run_folder import find_runs
from utils.workspace import short_path

runs = find_runs(kit.runs)
[run.name for run in runs]

# %% [markdown]
# By default the network with the highest validation LWLRAP is taken, of those that the competition allows: it forbade pretrained
# weights. Name one or more of the list above to choose; the scores of several are averaged.

# %%
names = [next(run.name for run in runs if run.has_weights and not run.pretrained)]

# %% tags=["nbval-ignore-output"]
chosen = [{run.name: run for run in runs}[name] for name in names]
cache = mel.build_cache(kit.competition.test, kit.cache, "test", kit.preset.mel)
test_set = MelDataset(cache, cache.readable(kit.competition.test), kit.competition.classes, kit.device)
scores = submission.blend([train.score_run(run, test_set) for run in chosen])
scores.shape

# %% [markdown]
# Every test clip needs a row. One that cannot be read is named here, and gets the share of the training clips that carry each class.

# %% tags=["nbval-ignore-output"]
all_scores = submission.fill_unreadable(scores, test_set.table, kit.competition)

# %% [markdown]
# Written, and checked: the rows and columns of the competition's sample, in its order, and finite scores within 0 and 1.

# %% tags=["nbval-ignore-output", "results"]
file = submission.write(kit.submissions / "submission.csv", all_scores, kit.competition, runs=chosen)
print("written:", short_path(file))

# %% tags=["nbval-ignore-output"]
submission.check(file, kit.competition).iloc[:5, :6].round(3)

# %% [markdown]
# One test clip, its first two seconds to hear, and what the submission says of it:

# %% tags=["nbval-ignore-output"]
clip = test_set.table.iloc[0]
plots.scores(kit.competition.classes, scores[0], clip["fname"])
plots.player(audio.load_clip(clip["path"], kit.preset.mel), kit.preset.mel)
