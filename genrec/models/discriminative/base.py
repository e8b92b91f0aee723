"""What all scoring models share: item ids, the score of every item, and the training by next-item prediction."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration import SOFTMAX, DiscriminativeConfig, NextItemConfig
from .negatives import draw_negatives, sampled_loss
from .sequences import IGNORED_LABEL, last_places, places_before
from .softmax import softmax_loss


@dataclass
class DiscriminativeOutput(ModelOutput):
    """What `forward` gives.

    Args:
        loss: The training loss, None without labels.
        states: What the model knows after each item, `[batch, length, width]`; None where a model has no such states.
    """

    loss: Tensor | None = None
    states: Tensor | None = None


class DiscriminativeModel(PreTrainedModel):
    """A model that gives every item of the catalog a score.

    Histories are padded rows of catalog rows, with `PAD_ITEM` (-1) where there is no item, at either side.

    Attributes:
        item_embeddings: One row per item id and one for padding, row 0; models may add rows of their own at the end.
        supports_behavior_ids: Whether there is a `-B` variant; models that read behaviors in their own way have none.
        prior: What an empty history is answered with, `[behaviors, items]`: logarithms of shares, 0 before training.

    Args:
        config: A configuration with `num_items` and `num_behaviors`.
        extra_ids: Rows of the embedding table after the items'.

    Raises:
        ValueError: If the configuration has no vocabulary.
    """

    config_class: type[DiscriminativeConfig] = DiscriminativeConfig
    config: DiscriminativeConfig
    base_model_prefix = "model"
    main_input_name = "items"
    supports_behavior_ids: ClassVar[bool] = True
    prior: Tensor

    def __init__(self, config: DiscriminativeConfig, extra_ids: int = 0) -> None:
        self.num_items, self.num_behaviors = config.require_vocabulary()
        super().__init__(config)
        self.item_embeddings = nn.Embedding(1 + config.num_item_ids + extra_ids, config.hidden_size, padding_idx=0)
        self.register_buffer("prior", torch.zeros(self.num_behaviors, self.num_items))

    def set_prior(self, counts: Tensor) -> None:
        """Set the answer to empty histories: how often each item was met, `[behaviors, items]`.

        An item that was never met under a behavior counts as half a time.
        """
        smoothed = counts.to(self.prior) + 0.5
        self.prior.copy_((smoothed / smoothed.sum(dim=1, keepdim=True)).log())

    @torch.no_grad()
    def score_items(
        self,
        items: Tensor,
        behaviors: Tensor,
        asked_behavior: int,
        sessions: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """Return the score of every item as the next one, `[batch, items]`; a row without items gets the prior.

        Args:
            items: The histories, `[batch, length]`.
            behaviors: The behavior of each interaction, `[batch, length]`.
            asked_behavior: The behavior that is asked for, an index of the ladder.
            sessions: The session of each interaction, `[batch, length]`, for models that read it.
            times: The second of each interaction, `[batch, length]`, for models that read it.

        Raises:
            ValueError: If a history is longer than `max_history_items`.
        """
        check_length(items, self.config.max_history_items, "A history")
        is_empty = (items < 0).all(dim=1)
        if items.shape[1] == 0 or is_empty.all():
            return self.prior[asked_behavior].expand(len(items), -1)
        scores = self._scores(items, behaviors, asked_behavior, sessions, times)
        return torch.where(is_empty[:, None], self.prior[asked_behavior], scores)

    @abstractmethod
    def _scores(
        self, items: Tensor, behaviors: Tensor, asked: int, sessions: Tensor | None, times: Tensor | None
    ) -> Tensor:
        """Return the scores of rows with at least one item each, `[batch, items]`; of others, anything."""

    def _ids(self, items: Tensor, behaviors: Tensor) -> Tensor:
        """Return rows of `item_embeddings`, `[batch, length]`, 0 where there is no item."""
        if self.config.behavior_ids:
            items = torch.where(items < 0, items, items + behaviors * self.num_items)
        return torch.where(items < 0, 0, items + 1)

    def _item_weights(self, asked: int | None = None) -> Tensor:
        """Return the embeddings of all item ids, or those that stand for the items under the asked behavior."""
        ids = slice(self.config.num_item_ids) if asked is None else self._block(asked)
        return self.item_embeddings.weight[1:][ids]

    def _block(self, asked: int) -> slice:
        """Return where the items stand among the item ids when a behavior is asked for."""
        start = asked * self.num_items if self.config.behavior_ids else 0
        return slice(start, start + self.num_items)


class NextItemModel(DiscriminativeModel):
    """A model that reads a history from left to right, and predicts the next item from its state after the last one."""

    config: NextItemConfig

    @abstractmethod
    def encode(self, items: Tensor, behaviors: Tensor) -> Tensor:
        """Return the state after each item, `[batch, length, width]`, of which no later item is part."""

    def forward(
        self,
        items: Tensor,
        behaviors: Tensor,
        labels: Tensor | None = None,
        sessions: Tensor | None = None,
        times: Tensor | None = None,
    ) -> DiscriminativeOutput:
        """Return the states, and with labels the mean loss.

        Args:
            items: `[batch, length]`, at most `max_history_items` without labels and one more with them.
            behaviors: `[batch, length]`.
            labels: The items that bear loss, in their own places, `[batch, length]`; -100 elsewhere. Each is predicted
                from the items before it. One that has none before it bears no loss.
            sessions: Session numbers `[batch, length]`, needed if the configuration is `session_wise`.
            times: Not read.

        Raises:
            ValueError: If a row is too long, or sessions are missing.
        """
        limit = self.config.max_history_items
        if labels is None:
            check_length(items, limit, "A history")
            return DiscriminativeOutput(states=self.encode(items, behaviors))
        check_length(items, limit + 1, "A sample, its last target included,")
        read = max(1, items.shape[1] - 1)  # from the last item, nothing is predicted
        states = self.encode(items[:, :read], behaviors[:, :read])
        return DiscriminativeOutput(self._loss(states, items, behaviors, labels, sessions), states)

    def _loss(
        self, states: Tensor, items: Tensor, behaviors: Tensor, labels: Tensor, sessions: Tensor | None
    ) -> Tensor:
        if self.config.session_wise and sessions is None:
            raise ValueError("A model with `session_wise` needs the `sessions` of its samples. Pass them to `forward`.")
        before = places_before(items >= 0, sessions if self.config.session_wise else None)
        rows, columns = ((labels != IGNORED_LABEL) & (before >= 0)).nonzero(as_tuple=True)
        queries = states[rows, before[rows, columns]]
        targets = self._ids(labels, behaviors)[rows, columns] - 1
        if self.config.loss == SOFTMAX:
            return softmax_loss(queries, self._item_weights(), targets)
        negatives = draw_negatives(self._ids(items, behaviors) - 1, rows, self.config.num_item_ids)
        return sampled_loss(queries, self._item_weights(), targets, negatives)

    def _scores(
        self, items: Tensor, behaviors: Tensor, asked: int, sessions: Tensor | None, times: Tensor | None
    ) -> Tensor:
        states = self.encode(items, behaviors)
        last = states[torch.arange(len(items), device=items.device), last_places(items >= 0)]
        return last @ self._item_weights(asked).T


def check_length(items: Tensor, limit: int, what: str) -> None:
    """Refuse rows longer than the model reads.

    Raises:
        ValueError: If they are.
    """
    if items.shape[1] > limit:
        raise ValueError(
            f"{what} may hold at most {limit} items (`max_history_items` counts those before a target), got "
            f"{items.shape[1]}. Keep the latest ones."
        )
