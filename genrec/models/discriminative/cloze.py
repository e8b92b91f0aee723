"""What models share that are trained to fill in hidden items: drawing the hidden places, and asking at the end."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import initialization as init

from .base import DiscriminativeModel, DiscriminativeOutput, check_length
from .configuration import TransformerConfig
from .sequences import IGNORED_LABEL, last_places
from .softmax import softmax_loss


@strict
class ClozeConfig(TransformerConfig):
    """The further fields of models trained on the Cloze task. Their linear maps start at 1/sqrt(fan-in).

    Args:
        mask_ratio: The share of a row's items that are hidden in training.
        last_item_ratio: The share of rows of which the last item alone is hidden instead, as at inference.
    """

    mask_ratio: float | int = 0.2
    last_item_ratio: float | int = 0.5

    def _check(self) -> None:
        super()._check()
        self._require(0 < self.mask_ratio < 1, "mask_ratio", "a rate above 0 and below 1")
        self._require(0 <= self.last_item_ratio <= 1, "last_item_ratio", "a rate from 0 to 1")


class Masked(NamedTuple):
    """Rows in which some items are hidden, `[batch, length]` each.

    Args:
        items: Catalog rows, whatever stands there in hidden places; -1 for pads.
        behaviors: Their behaviors, those of hidden items included.
        is_hidden: Where the item is to be guessed.
        sessions: Session numbers, or None.
        times: Seconds, or None.
    """

    items: Tensor
    behaviors: Tensor
    is_hidden: Tensor
    sessions: Tensor | None = None
    times: Tensor | None = None


class ClozeModel(DiscriminativeModel):
    """A model that guesses hidden items from all others, and at inference the one after the last.

    The last row of `item_embeddings` is the hidden item's.
    """

    config: ClozeConfig

    def __init__(self, config: ClozeConfig) -> None:
        super().__init__(config, extra_ids=1)
        self.mask_id = 1 + config.num_item_ids

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # at .02, a hidden place hardly depends on the history, and learns so late
            init.normal_(module.weight, std=module.in_features**-0.5)

    @abstractmethod
    def encode(self, masked: Masked) -> Tensor:
        """Return the state of each place, `[batch, length, width]`; rows hold at most `max_history_items` + 1 items."""

    @abstractmethod
    def _logits_parts(self, states: Tensor, behaviors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what logits are made of: queries `[places, width]`, item weights `[ids, width]`, a bias `[ids]`.

        Args:
            states: Of hidden places, `[places, width]`.
            behaviors: The behaviors of the hidden items, `[places]`.
        """

    def forward(
        self,
        items: Tensor,
        behaviors: Tensor,
        labels: Tensor | None = None,
        sessions: Tensor | None = None,
        times: Tensor | None = None,
    ) -> DiscriminativeOutput:
        """Return the states, and with labels the mean loss of guessing hidden items.

        In training, the hidden places are drawn anew each time; labels only say which rows there are to learn from. In
        evaluation mode the items with labels are hidden, all at once.

        Args:
            items: `[batch, length]`, at most `max_history_items` + 1.
            behaviors: `[batch, length]`.
            labels: `[batch, length]`, -100 where an item bears no loss; None hides nothing.
            sessions: Session numbers, `[batch, length]`, for models that read them.
            times: Seconds, `[batch, length]`, for models that read them.

        Raises:
            ValueError: If a row is too long.
        """
        check_length(items, self.config.max_history_items + 1, "A sample, its last target included,")
        is_hidden = torch.zeros_like(items, dtype=torch.bool)
        if labels is not None:
            is_hidden = self._draw(items, labels) if self.training else labels != IGNORED_LABEL
        states = self.encode(Masked(items, behaviors, is_hidden, sessions, times))
        if labels is None:
            return DiscriminativeOutput(states=states)
        targets = self._ids(items, behaviors)[is_hidden] - 1
        queries, weights, bias = self._logits_parts(states[is_hidden], behaviors[is_hidden])
        return DiscriminativeOutput(softmax_loss(queries, weights, targets, bias), states)

    def _draw(self, items: Tensor, labels: Tensor) -> Tensor:
        """Draw the hidden places of rows with labels, `[batch, length]`; at least one in each."""
        rates = self.config.mask_ratio, self.config.last_item_ratio
        drawn = draw_hidden(items >= 0, *rates)
        return drawn & (labels != IGNORED_LABEL).any(dim=1, keepdim=True)

    def _scores(
        self, items: Tensor, behaviors: Tensor, asked: int, sessions: Tensor | None, times: Tensor | None
    ) -> Tensor:
        masked = with_hidden_next(items, behaviors, asked, sessions, times)
        states = self.encode(masked)[:, -1]
        queries, weights, bias = self._logits_parts(states, masked.behaviors[:, -1])
        block = self._block(asked)
        scores = queries @ weights[block].T
        return scores if bias is None else scores + bias[block]

    def _masked_ids(self, masked: Masked) -> Tensor:
        """Return rows of `item_embeddings`, hidden items as such, `[batch, length]`."""
        return torch.where(masked.is_hidden, self.mask_id, self._ids(masked.items, masked.behaviors))


def draw_hidden(is_real: Tensor, mask_ratio: float, last_item_ratio: float) -> Tensor:
    """Draw which items are hidden: of some rows the last one, of others each with a probability.

    Args:
        is_real: Where items are, `[batch, length]`.
        mask_ratio: That probability. Where it hides none, the last one is hidden.
        last_item_ratio: The share of rows of which the last item alone is hidden.

    Returns:
        `[batch, length]` bool, at least one in each row with items.
    """
    columns = torch.arange(is_real.shape[1], device=is_real.device)
    is_last = is_real & (columns == last_places(is_real)[:, None])
    is_drawn = is_real & (torch.rand(is_real.shape, device=is_real.device) < mask_ratio)
    takes_last = torch.rand(len(is_real), 1, device=is_real.device) < last_item_ratio
    return torch.where(takes_last | ~is_drawn.any(dim=1, keepdim=True), is_last, is_drawn)


def with_hidden_next(
    items: Tensor, behaviors: Tensor, asked: int, sessions: Tensor | None, times: Tensor | None
) -> Masked:
    """Append to each row a hidden item of the asked behavior, in a session of its own.

    It stands in the last column; pads before it count nowhere, so that rows may have theirs at either side.
    """

    def appended(values: Tensor, filler: Tensor | int) -> Tensor:
        column = torch.full_like(values[:, :1], filler) if isinstance(filler, int) else filler
        return torch.cat([values, column], dim=1)

    last = last_places(items >= 0)[:, None]
    is_hidden = torch.zeros_like(items, dtype=torch.bool)
    return Masked(
        items=appended(items, 0),
        behaviors=appended(behaviors, asked),
        is_hidden=appended(is_hidden, torch.ones_like(is_hidden[:, :1])),
        sessions=None if sessions is None else appended(sessions, sessions.gather(1, last) + 1),
        times=None if times is None else appended(times, times.gather(1, last)),
    )
