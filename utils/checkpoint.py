"""The checkpoint of a training in progress."""

import io
import pickle
import time
from pathlib import Path

import torch

from . import distributed, files


class Checkpoint:
    """The file `RUN.checkpoint` beside a run's folder: the state of `parts` after an epoch, and the history so far.

    `parts` maps names to objects with a state_dict. `key` identifies the training: a checkpoint of another one is not
    used and in time overwritten, which is printed. The number of processes and the kind of device may change between
    starts.
    """

    def __init__(self, folder: Path, key: str, parts: dict[str, object]) -> None:
        self.file = folder.with_name(f"{folder.name}.checkpoint")
        self.key, self.parts = key, parts
        self._cost, self._kept = 0.0, time.perf_counter()

    def resume(self) -> tuple[list[dict], float]:
        """Load the saved state into `parts`; return its history and the seconds it took, or [] and 0 if there is none.

        Raises ValueError if the file is not a checkpoint.
        """
        if not self.file.is_file():
            return [], 0.0
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            same, history, seconds = state["key"] == self.key, state["history"], state["seconds"]
            states = {name: state[name] for name in self.parts} if same else {}
        except (LookupError, TypeError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            if "memory" in str(error):  # which may be short, though the file is fine
                raise
            raise ValueError(f"{self.file} is not a checkpoint of this kit: remove it to start over.") from error
        if not same:
            other = "is from a training with other clips, weights or settings"
            print(f"{self.file.name} {other}: it is not used, and overwritten if you train here")
            return [], 0.0
        for name, part in self.parts.items():
            if states[name]:  # the loss scaler has no state if it was not needed, but may be needed now
                part.load_state_dict(states[name])
        return history, seconds

    def save(self, history: list[dict], seconds: float, last: bool) -> None:
        """Replace the file after the last epoch, and after others while saving takes at most 1/20 of the time."""
        began = time.perf_counter()
        if distributed.rank() or (not last and began - self._kept < 20 * self._cost):
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        content = io.BytesIO()  # torch.save does not say why it cannot write to a file
        torch.save(state | {"key": self.key, "history": history, "seconds": seconds}, content)
        with files.atomic_file(self.file) as unfinished:
            unfinished.write_bytes(content.getvalue())  # a view kept alive by an error crashes the GC of Python 3.12.1
        self._kept = time.perf_counter()
        self._cost = self._kept - began

    def remove(self) -> None:
        """Delete the file, once the run is saved."""
        self.file.unlink(missing_ok=True)
