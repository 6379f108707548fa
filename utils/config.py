"""Every setting of the kit: frozen dataclasses, and the two presets."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

KAGGLE_INPUT = Path("/kaggle/input")
KAGGLE_WORKING = Path("/kaggle/working")
NO_AUGMENTATION = {"mix_probability": 0.0, "resize_probability": 0.0, "spec_augment_probability": 0.0}


def attached(pattern: str) -> list[Path]:
    """What matches `pattern` in anything attached on Kaggle: the competition, a data set, or another notebook's output.

    These are mounted one to three folders down, and some copies hold their folder once more.
    """
    return [path for depth in range(1, 5) for path in sorted(KAGGLE_INPUT.glob("*/" * depth + pattern))]


def as_table(config: "MelConfig | TrainingConfig") -> pd.DataFrame:
    """The settings of a config, one a row, as text: to look at."""
    return pd.DataFrame({"value": {name: str(value) for name, value in asdict(config).items()}})


@dataclass(frozen=True)
class MelConfig:
    """From samples to a log-mel spectrogram (paper, section III).

    The paper gives the HTK scale, 128 bands and 128 frames for 2 s; it is silent on
    `n_fft`, `fmin` and `fmax`, which are those of the starter kernels of the competition. Raises ValueError if fmin and
    fmax do not lie one above the other from 0 to half of the sample rate.
    """

    sample_rate: int = 44_100  # Hz; clips at another rate are resampled
    n_fft: int = 2560  # samples, 58 ms
    hop_length: int = 694  # samples, 15.7 ms: 2 s are then 128 centred frames
    n_mels: int = 128
    fmin: float = 20.0  # Hz
    fmax: float = 22_050.0  # Hz
    top_db: float = 80.0  # dB below the clip's loudest point, where the spectrogram is cut
    amin: float = 1e-10  # the least power that is told apart from none, -100 dB
    trim_db: float = 60.0  # dB below the clip's loudest frame, what counts as silence at its ends

    def __post_init__(self) -> None:
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            limits = f"fmin {self.fmin:g} and fmax {self.fmax:g} Hz"
            raise ValueError(f"{limits}: set them from 0 to half of the sample rate, {self.sample_rate / 2:g} Hz.")


@dataclass(frozen=True)
class TrainingConfig:
    """How one model is trained, and how it scores clips afterwards. Raises ValueError on a value that means nothing."""

    epochs: int
    min_steps: int = 1  # optimiser steps, if the epochs would take fewer: small data are passed more often
    max_steps: int | None = None  # optimiser steps, if the epochs would take more: bounds the time on any data
    batch_size: int = 32
    optimizer: str = "adam"  # the paper's; or "muon", for the weights of convolutions
    learning_rate: float = 1e-3
    weight_decay: float = 0.0  # AdamW's; without it AdamW is Adam (Muon's is a constant of its module)
    schedule: str = "constant"  # or "cosine": warms up over a tenth of the steps, then falls to zero
    activation: str = "softmax"  # the paper's; or "sigmoid", each class for itself
    n_frames: int = 128  # frames the model sees at once: 2 s
    crop: str = "start"  # the paper's first 2 s of each clip; or "random", another 2 s each time
    test_crops: int = 1  # test-time augmentation: at most so many crops, evenly spaced, are averaged to score a clip
    mix_probability: float = 0.0  # how often another clip is added, in power; the labels are those of both
    resize_probability: float = 0.0  # how often a crop's tempo and its place on the mel axis are changed
    spec_augment_probability: float = 0.0  # how often a frequency mask and a time mask are laid on (SpecAugment)
    augmented: float = 0.9  # the share of the steps, from the first on, that is augmented in these three ways
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
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: set it to 1 or more.")
        for name in ("mix_probability", "resize_probability", "spec_augment_probability", "augmented"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: set it to a number from 0 to 1.")

    def steps(self, n_clips: int) -> int:
        """Optimiser steps of a training on that many clips."""
        steps = max(self.epochs * math.ceil(n_clips / self.batch_size), self.min_steps)
        return min(steps, self.max_steps or steps)

    @property
    def deterministic(self) -> bool:
        """Whether a clip is the same input in every epoch."""
        return self.crop == "start" and not any(getattr(self, name) for name in NO_AUGMENTATION)


@dataclass(frozen=True)
class Preset:
    """How much one pass through the notebooks does. What it does to a model is in `models.MODELS`."""

    name: str
    mel: MelConfig = field(default_factory=MelConfig)
    n_folds: int = 5  # the validation split is one of them: the paper's 80/20
    max_noisy: int | None = None  # at most so many noisy clips are used, the first ones of their table
    drop_unreadable: bool = False  # train without the clips that cannot be read, instead of stopping with their list
    seed: int = 0


FULL = Preset("full")  # the paper's own settings for the paper's models
QUICK = Preset("quick", max_noisy=500)  # minutes on a laptop's two cores, whatever the size of the data
PRESETS: dict[str, Preset] = {preset.name: preset for preset in (FULL, QUICK)}
