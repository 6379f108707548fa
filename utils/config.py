"""All settings of the kit: frozen dataclasses, the two presets, and the folders of Kaggle."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

KAGGLE_INPUT = Path("/kaggle/input")
KAGGLE_WORKING = Path("/kaggle/working")
NO_AUGMENTATION = dict.fromkeys(
    ("mix_probability", "resize_probability", "spec_augment_probability", "filter_probability"), 0.0
)


def attached(pattern: str) -> list[Path]:
    """Find what matches `pattern` in Kaggle's inputs: the competition, datasets, and outputs of other notebooks.

    Inputs are mounted one to three folders down, and some copies contain their folder once more.
    """
    return [path for depth in range(1, 5) for path in sorted(KAGGLE_INPUT.glob("*/" * depth + pattern))]


def as_table(config: "MelConfig | TrainingConfig") -> pd.DataFrame:
    """Return the settings of a config as text, one per row, for display."""
    return pd.DataFrame({"value": {name: str(value) for name, value in asdict(config).items()}})


@dataclass(frozen=True)
class MelConfig:
    """How a log-mel spectrogram is computed from samples (paper, section III).

    The paper gives the HTK scale, 128 bands and 128 frames for 2 s, but not `n_fft`, `fmin` and `fmax`, which are those
    of the competition's starter notebooks. Raises ValueError unless 0 <= fmin < fmax <= sample_rate / 2.
    """

    sample_rate: int = 44_100  # Hz; clips at another rate are resampled
    n_fft: int = 2560  # samples, 58 ms
    hop_length: int = 694  # samples, 15.7 ms: 2 s are then 128 centered frames
    n_mels: int = 128
    fmin: float = 20.0  # Hz
    fmax: float = 22_050.0  # Hz
    top_db: float = 80.0  # dB below the clip's loudest point, where the spectrogram is clipped
    amin: float = 1e-10  # the smallest power distinguished from zero, -100 dB
    trim_db: float = 60.0  # dB below the clip's loudest frame; quieter ends count as silence

    def __post_init__(self) -> None:
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            limits = f"0 <= fmin < fmax <= {self.sample_rate / 2:g} Hz, half of the sample rate"
            raise ValueError(f"fmin is {self.fmin:g} Hz and fmax is {self.fmax:g} Hz: set {limits}.")

    def silence(self, loudest: float) -> float:
        """Return the level in dB of silence in a clip: `top_db` below its loudest point, or that of `amin`."""
        return max(loudest - self.top_db, 10 * math.log10(self.amin))


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained, and how it scores clips afterwards. Raises ValueError for an invalid value."""

    epochs: int
    min_steps: int = 1  # optimizer steps at least: small data gets more epochs
    max_steps: int | None = None  # optimizer steps at most: bounds the time on any data
    batch_size: int = 32
    optimizer: str = "adam"  # the paper's; or "muon", for the weights of convolutions
    learning_rate: float = 1e-3
    weight_decay: float = 0.0  # AdamW's; without it AdamW is Adam (Muon's is a constant in its module)
    schedule: str = "constant"  # or "cosine": warms up over a tenth of the steps, then falls to zero
    activation: str = "softmax"  # the paper's; or "sigmoid", independent for each class
    n_frames: int = 128  # frames per crop, 2 s
    crop: str = "start"  # the paper's: the first 2 s of each clip; or "random", another 2 s each time
    test_crops: int = 1  # test-time augmentation: a clip is scored by at most this many crops
    mix_probability: float = 0.0  # of adding another clip, in power; the mixture has the labels of both
    resize_probability: float = 0.0  # of changing a crop's tempo and its position on the mel axis
    spec_augment_probability: float = 0.0  # of applying a frequency mask and a time mask (SpecAugment)
    filter_probability: float = 0.0  # of changing the balance of low and high frequencies (FilterAugment)
    augmented: float = 0.9  # share of the steps, from the first on, with the augmentations above
    seed: int = 0

    def __post_init__(self) -> None:
        words = {
            "optimizer": ("adam", "muon"), "schedule": ("constant", "cosine"),
            "activation": ("softmax", "sigmoid"), "crop": ("start", "random"),
        }  # fmt: skip
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: set it to one of {', '.join(known)}.")
        for name in ("epochs", "min_steps", "max_steps", "batch_size", "n_frames", "test_crops"):
            value = getattr(self, name)
            if (value is not None or name != "max_steps") and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}: set it to a whole number, 1 or more.")
        if type(self.seed) is not int:
            raise ValueError(f"seed is {self.seed!r}: set it to a whole number.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: set it to a number above 0.")
        for name in (*NO_AUGMENTATION, "augmented"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: set it to a number from 0 to 1.")

    def steps_per_epoch(self, n_clips: int) -> int:
        """Return the number of batches of `n_clips` clips, of nearly equal size."""
        return math.ceil(n_clips / self.batch_size)

    def smallest_batch(self, n_clips: int) -> int:
        """Return the size of the smallest of these batches."""
        return n_clips // max(1, self.steps_per_epoch(n_clips))

    def steps(self, n_clips: int) -> int:
        """Return the number of optimizer steps of a training on `n_clips` clips."""
        steps = max(self.epochs * self.steps_per_epoch(n_clips), self.min_steps)
        return min(steps, self.max_steps or steps)


@dataclass(frozen=True)
class Preset:
    """How much one pass through the notebooks does. Its settings for each model are in `models.MODELS`."""

    name: str
    mel: MelConfig = MelConfig()
    n_folds: int = 5  # of `best`
    max_noisy: int | None = None  # use at most this many noisy clips, the first in their table
    drop_unreadable: bool = False  # FAT_DROP_UNREADABLE: train without unreadable clips instead of stopping
    seed: int = 0


FULL = Preset("full")  # for the paper's models, the paper's settings where it gives them
QUICK = Preset("quick", max_noisy=500)  # minutes of training on a laptop's two cores, whatever the size of the data
PRESETS: dict[str, Preset] = {preset.name: preset for preset in (FULL, QUICK)}
