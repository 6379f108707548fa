"""The related work on your data: python -m tests.related [SYSTEM ...] [--data DIR] [--preset NAME] [--epochs N]

Every network is shown each training clip `--epochs` times, with its own batch size and augmentation, and evaluated
after its last step on the fifth of the clips that is held out; a seed draws that split, the weights and the crops.
The preset sets network sizes: with `quick`, image networks see 32 x 32 or 64 x 64 points of a crop; with `full`, all of
it, which takes ten times as long. Networks trained before are kept in the work folder and skipped in a rerun.
"""

import argparse
from dataclasses import replace

import pandas as pd

from utils import baselines, launch, mel_cache, models, setup, train
from utils.config import PRESETS
from utils.dataset import load_split
from utils.run_folder import Run
from utils.workspace import Workspace

NETWORKS = [name for name in launch.ONE_TRAINING if not models.MODELS[name].pretrained]


def train_system(name: str, kit: Workspace, epochs: int, seed: int) -> Run:
    """Return the run of a system, trained if needed."""
    folder = kit.folder / "related" / kit.runs.name / f"{kit.preset.name}-{epochs}-{seed}" / name
    table, classes, preset = kit.competition.curated, kit.competition.classes, replace(kit.preset, seed=seed)
    cache = mel_cache.build(table, kit.cache, "curated", preset.mel)
    sets = load_split(cache, table, classes, preset, kit.device)
    if name in baselines.TITLES:
        return baselines.fit(name, *sets, folder)
    entry = models.MODELS[name]
    config = replace(entry.config(preset.name), epochs=epochs, min_steps=1, max_steps=None, seed=seed)
    return train.fit(entry.build(len(classes), preset.name, seed), *sets, config, folder, entry.title)


def main() -> None:
    systems = [*baselines.TITLES, *NETWORKS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.related", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"default: all of {', '.join(systems)}")
    parser.add_argument("--data", help="data folder, in Kaggle's or Zenodo's layout (FAT_DATA)")
    parser.add_argument("--preset", choices=PRESETS, help="FAT_PRESET")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    if unknown := set(options.systems) - set(systems):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(systems)}")
    kit, rows = setup(options.data, options.preset), []
    for name in options.systems or systems:
        for seed in range(options.seeds):
            run = train_system(name, kit, options.epochs, seed)
            rows.append(run.summary() | run.cost() | {"seed": seed})
    table = pd.DataFrame(rows)
    scores = table.pivot(index="model", columns="seed", values="LWLRAP").add_prefix("LWLRAP, seed ")
    mean = table.groupby("model")[["LWLRAP", "top-5", "parameters", "MMAC", "seconds"]].mean()
    print(scores.join(mean).sort_values("LWLRAP").round(3).to_string())


if __name__ == "__main__":
    main()
