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
# One model, or a blend of several, scores each class for every test clip.
#
# **You get** a checked `submission.csv`, its score where the labels of the test clips are known, and the steps to submit it. **Reads** the
# runs of the earlier notebooks and the test cache of notebook 2, which is rebuilt if the test clips have changed, as in the second stage of
# the competition. **Writes** `submissions/submission.csv` and, beside it, a JSON record of how it was made. **Takes** seconds on the mini
# set; with `best` on the competition's data, an estimated five minutes on two cores.
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

# %% tags=["nbval-ignore-output"]
from IPython.display import display

from utils import audio, charts, inference, mel_cache, plots, submission
from utils.dataset import MelDataset
from utils.runs import find_runs
from utils.workspace import short_path

runs = find_runs(kit.runs)
[run.name for run in runs]

# %% [markdown]
# ## One run, or a blend
#
# The default is `best`, if it was trained with `full`: its submission blends five models, while its LWLRAP is that of one model per clip.
# (Of several such runs, with names like `best_wide-full`, it is the one with the highest LWLRAP.) Otherwise it is the run with the highest
# validation LWLRAP. Left out are k-NN and naive Bayes (notebook 5), which cannot score other clips, and pretrained weights, which the
# competition forbade.

# %%
allowed = submission.allowed(runs)
chosen = allowed[:1]  # a blend of two: allowed[:2], or [run for run in allowed if run.name in ("...", "...")]
[run.name for run in chosen]

# %% [markdown]
# A blend is the geometric mean of the scores; the folds of `best` are combined the same way. Below are the chosen runs and their blend or,
# if only one is chosen, the first three that are allowed and theirs, on the same validation clips. Choose a blend if it does clearly better
# than each of its runs; on 48 clips, as in the stored outputs, no small difference is clear.
#
# Another seed of `best` may add little: on test clips of drum kits never heard, five models of 1,000 steps each have 0.833, five of another
# seed 0.853, and all ten 0.838. To train one, in notebook 6: `import dataclasses`, then
# `best.fit(curated, noisy, dataclasses.replace(kit.preset, seed=5), kit.run_folder("best_seed5"))`.

# %% tags=["nbval-ignore-output"]
submission.blend_table(chosen if len(chosen) > 1 else allowed[:3])

# %% [markdown]
# ## The test clips

# %% tags=["nbval-ignore-output"]
cache = mel_cache.build(kit.competition.test, kit.cache, "test", kit.preset.mel)
test_set = MelDataset(cache, cache.readable(kit.competition.test), kit.competition.classes, kit.device)
scores = inference.blend([inference.score_run(run, test_set) for run in chosen])
scores.shape

# %% [markdown]
# How confident is it? Near 1, the model is sure, rightly or not, that the class is there; most classes are absent from a clip:

# %% tags=["nbval-ignore-output"]
charts.score_histogram(scores)

# %% [markdown]
# ## The file
#
# Every test clip needs a row. A clip that cannot be read is reported and scored with each class's share of the curated clips.

# %% tags=["nbval-ignore-output"]
all_scores = submission.fill_unreadable(scores, test_set.table, kit.competition)

# %% [markdown]
# The file is written if it has the rows and columns of the sample submission, in order, and finite scores from 0 to 1:

# %% tags=["nbval-ignore-output", "results"]
file = submission.write(kit.submissions / "submission.csv", all_scores, kit.competition, runs=chosen)
print("written:", short_path(file), "by", " and ".join(short_path(run.folder) for run in chosen))

# %% tags=["nbval-ignore-output"]
submission.check(file, kit.competition).iloc[:5, :6].round(3)

# %% [markdown]
# One test clip, its five highest scores and a player for its first two seconds:

# %% tags=["nbval-ignore-output"]
import pandas as pd

clip = test_set.table.iloc[0]
samples = audio.load_clip(clip["path"], kit.preset.mel)
plots.tagged_clip(samples, pd.Series(scores[0], kit.competition.classes), kit.preset.mel, clip["fname"])
plots.player(samples, kit.preset.mel)

# %% [markdown]
# ## LWLRAP on the test clips
#
# Kaggle keeps the labels of the test clips to itself. The mini set, a dataset of your own sounds (notebook 10) and the public release on
# Zenodo have them. Zenodo's also says which clips made up the Public and Private leaderboards, so this is what they would have shown. On
# the competition's data, expect about 0.15 less on the leaderboards than on validation clips. For example,
# [ebouteillon's](https://github.com/ebouteillon/freesound-audio-tagging-2019#results) model, trained on the noisy set and then on the
# curated clips, had 0.862 in cross-validation and 0.723 on the Public leaderboard; with some of the noisy clips, 0.879 and 0.724. One
# reason: the test clips' labels are complete, 1.4 per clip, while curated clips have 1.2 and may lack some.
#
# Nothing was trained or chosen on the test clips. The score is unbiased as long as you do not choose between models by it.

# %% tags=["nbval-ignore-output", "results"]
if "labels" in kit.competition.test:
    display(submission.score(file, kit.competition).rename_axis("test clips"))
else:
    print("This data has no labels for the test clips.")

# %% [markdown]
# ## Submit it on Kaggle
#
# The competition accepts only notebooks that write the file, and still takes late submissions. There, this notebook finds the outputs of
# the others, runs without internet, as the rules require, and writes `/kaggle/working/submission.csv`. These steps follow Kaggle's
# documentation; the kit has not yet been run there. In a shell, in the kit's folder:
#
# 1. Accept the [rules](https://www.kaggle.com/c/freesound-audio-tagging-2019/rules) and verify your phone, without which there is no GPU.
#    `pip install kaggle`, and save the token from [your settings](https://www.kaggle.com/settings/api) as `~/.kaggle/access_token`.
# 2. `python -m utils.kaggle YOU` writes the notebooks for your account and prints the commands of the next two steps. To change a setting,
#    edit the notebook in `notebooks/` and type it again. (For runs trained elsewhere, on Kaggle's or Zenodo's copy of the data, now copy
#    their folder, as by `mkdir -p work/kaggle/kit/runs && cp -r work/runs/data-1a2b3c work/kaggle/kit/runs`.)
# 3. Upload the kit, and repeat the printed `kaggle datasets status` until it is ready.
# 4. Push `02_preprocessing`, then `06_beyond_the_paper` for a high score (or `03_cnn` for the paper's Deep CNN), then `08_submission`, each
#    after the previous one has finished; with runs trained elsewhere, only `08_submission`. The last push warns that notebooks which you
#    left out are not valid kernel sources; that does no harm. If a push warns of the kit or of a notebook that you pushed, wait or repair
#    that, and push again. How long they take on Kaggle has not been measured
#    ([estimates](https://github.com/OWNER/freesound-tagging-kit/blob/main/utils/README.md#what-best-takes-on-the-competitions-own-data)).
# 5. Press *Submit to competition* beside the notebook's output, or submit the version that the last push printed, here 1:
#    `kaggle competitions submit freesound-audio-tagging-2019 -k YOU/freesound-tagging-kit-08-submission -v 1 -f submission.csv -m best`
# 6. Kaggle reruns it on its own test clips, where it must finish within an hour on a GPU.
#    `kaggle competitions submissions freesound-audio-tagging-2019` shows the score.

# %% [markdown]
# Next: `09_explanation` asks what in a sound supports a label.
