"""An exponential moving average of the weights: what is validated, saved and kept, while the steps go on without it.

Small batches leave weights that jump from step to step, and with them the figure by which a checkpoint is chosen. The
average of Polyak and Juditsky (1992), in its exponential form, moves less and is as good or better.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

STEP_WEIGHTS_FILE = "step_weights.safetensors"


class WeightAverage(TrainerCallback):
    """Keeps the average of a model's weights up to date after each step.

    Early on it forgets faster, `(1 + t) / (10 + t)` after `t` steps, so that it does not hold on to the first weights.

    Args:
        model: The model that is trained.
        decay: How much of the average stays at each step, in (0, 1): it covers about `1 / (1 - decay)` steps.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 1.0)
        >>> average = WeightAverage(layer, decay=0.5)
        >>> _ = nn.init.constant_(layer.weight, 3.0)
        >>> average.update(num_steps=100)
        >>> with average.in_place():
        ...     layer.weight.item()
        2.0
        >>> layer.weight.item()
        3.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self._averages: list[Tensor] | None = [weight.detach().clone() for weight in model.parameters()]

    @property
    def is_kept(self) -> bool:
        """Whether there is an average beside the weights: not any more once it has been taken over."""
        return self._averages is not None

    def update(self, num_steps: int) -> None:
        """Take the weights after `num_steps` steps in."""
        if self._averages is None:
            return
        weights = [weight.detach() for weight in self.model.parameters()]
        averages = [average.to(weight.device) for average, weight in zip(self._averages, weights, strict=True)]
        kept = min(self.decay, (1 + num_steps) / (10 + num_steps))
        torch._foreach_lerp_(averages, weights, 1 - kept)
        self._averages = averages

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def take_over(self) -> None:
        """Leave the average in the model, and keep none from now on."""
        self._swap()
        self._averages = None

    def drop(self) -> None:
        """Leave the weights in the model, and keep no average from now on."""
        self._averages = None

    def save_step_weights(self, folder: Path) -> None:
        """Write the weights that the steps go on from, beside the average that a checkpoint holds."""
        if self.is_kept:
            weights = {name: weight.detach().contiguous() for name, weight in self.model.named_parameters()}
            save_file(weights, folder / STEP_WEIGHTS_FILE)

    def resume(self, folder: Path) -> None:
        """Take the model's weights, just read from a checkpoint, as the average, and read those of the steps.

        Raises:
            ValueError: If the checkpoint was saved without an average.
        """
        if not (folder / STEP_WEIGHTS_FILE).is_file():
            raise ValueError(
                f"{folder} was saved by a training without `ema_decay`, so there is nothing to go on averaging from. "
                "Resume without it, or start anew."
            )
        self._averages = [weight.detach().clone() for weight in self.model.parameters()]
        saved = load_file(folder / STEP_WEIGHTS_FILE)
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(saved[name])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the step's weights in."""
        self.update(state.global_step)

    def _swap(self) -> None:
        for weight, average in zip(self.model.parameters(), self._averages or [], strict=False):
            weight.data, average.data = average.data.to(weight.device), weight.data
