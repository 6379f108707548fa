"""Every setting of the kit: frozen dataclasses, and the presets, which are values of one of them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

KAGGLE_INPUT = Path("/kaggle/input")
KAGGLE_WORKING = Path("/kaggle/working")
COLAB = Path("/content")


def attached(pattern: str) -> list[Path]:
    """What matches `pattern` in anything attached on Kaggle: the competition, a data set, or another notebook's output.

    These are mounted one to three folders down, and some copies hold their folder once more.
    """
    return [path for depth in range(1, 5) for path in sorted(KAGGLE_INPUT.glob("*/" * depth + pattern))]


@dataclass(frozen=True)
class MelConfig:
    """From samples to a log-mel spectrogram (paper, section III).

    The paper gives the HTK scale, 128 bands and 128 frames for 2 s; it is silent on
    `n_fft`, `fmin` and `fmax`, which are those of the starter kernels of the competition.
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


@dataclass(frozen=True)
class TrainingConfig:
    """How one model is trained, and how it is asked afterwards."""

    epochs: int
    max_steps: int | None = None  # optimiser steps, if the epochs would take more: bounds the time on any data
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: str = "constant"  # or "cosine": warms up over a tenth of the steps, then falls to zero
    output: str = "softmax"  # the paper's words; or "sigmoid", each class for itself
    n_frames: int = 128  # frames the model sees at once: 2 s
    crop: str = "start"  # the paper's first 2 s of each clip; or "random", another 2 s each time
    windows: int = 1  # at most so many windows, evenly spaced over the clip, are averaged to score it
    mixup: bool = False  # mix pairs of clips and of their labels
    masking: bool = False  # blank out a band of frequencies and a stretch of time
    seed: int = 0

    @property
    def repeats(self) -> bool:
        """Whether a clip is the same input in every epoch."""
        return self.crop == "start" and not self.mixup and not self.masking


@dataclass(frozen=True)
class Preset:
    """All settings of one pass through the notebooks."""

    name: str
    width: int  # channels of the Deep CNN's first block; each further block doubles them
    deep_cnn: TrainingConfig
    vgg19_transfer: TrainingConfig  # VGG19 from ImageNet weights
    vgg19_no_weights: TrainingConfig  # VGG19 from random weights
    mel: MelConfig = field(default_factory=MelConfig)
    validation_fraction: float = 0.2  # the paper's 80/20
    drop_unreadable: bool = False  # train without the clips that cannot be read, instead of stopping with their list
    seed: int = 0


# What the paper says. It is silent on widths, batch size and learning rate: these are common values, lower for VGG19, which
# has no batch normalisation to keep it from diverging.
FULL = Preset(
    name="paper",
    width=64,
    deep_cnn=TrainingConfig(epochs=400),
    vgg19_transfer=TrainingConfig(epochs=100, learning_rate=1e-4),
    vgg19_no_weights=TrainingConfig(epochs=400, learning_rate=1e-4),
)

# Minutes on two cores, whatever the size of the data: max_steps sees to it.
_QUICK = TrainingConfig(
    epochs=80,
    max_steps=1500,
    learning_rate=3e-3,
    schedule="cosine",
    output="sigmoid",
    crop="random",
    windows=8,
)
_QUICK_VGG19 = replace(_QUICK, epochs=2, max_steps=60, batch_size=16, learning_rate=1e-4, windows=1)
_QUICK_TRANSFER = replace(_QUICK_VGG19, epochs=6, max_steps=120, crop="start")  # the frozen layers then run but once
QUICK = Preset(name="quick", width=16, deep_cnn=_QUICK, vgg19_transfer=_QUICK_TRANSFER, vgg19_no_weights=_QUICK_VGG19)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (FULL, QUICK)}
