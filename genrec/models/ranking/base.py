"""What all ranking baselines share: embeddings of interactions and items, the loss, and what they give."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration import RankingConfig

IGNORED_LABEL = -100


class RankingModel(PreTrainedModel):
    """A model that gives each shown item the log-odds that it converts.

    Histories and candidates are padded rows of catalog rows, -1 where there is no item, at either side.

    Args:
        config: A configuration with `num_items`.

    Raises:
        ValueError: If `num_items` is unset.
    """

    config_class: type[RankingConfig] = RankingConfig
    config: RankingConfig
    base_model_prefix = "model"
    main_input_name = "items"

    def __init__(self, config: RankingConfig) -> None:
        num_items = config.require_items()
        super().__init__(config)
        self.item_embeddings = nn.Embedding(1 + num_items, config.hidden_size, padding_idx=0)
        self.behavior_embeddings = nn.Embedding(config.num_behaviors, config.hidden_size)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def forward(
        self,
        items: torch.LongTensor,
        behaviors: torch.LongTensor,
        candidates: torch.LongTensor,
        labels: torch.LongTensor | None = None,
    ) -> SequenceClassifierOutput:
        """Return `logits`, the log-odds of a conversion per candidate `[batch, candidates]`, and with labels the loss.

        Args:
            items: The history, oldest first, -1 where there is no item `[batch, length]`.
            behaviors: How each interaction ended, from 0; the highest is the conversion `[batch, length]`.
            candidates: The items asked about, which do not influence each other, or -1 `[batch, candidates]`.
            labels: How each candidate ended, -100 where there is no loss `[batch, candidates]`.

        Raises:
            ValueError: If a history is longer than `max_history_items`.
        """
        if items.shape[1] > self.config.max_history_items:
            raise ValueError(
                f"A history may have {self.config.max_history_items} items (`max_history_items`), got rows of "
                f"{items.shape[1]}. Cut them to the latest."
            )
        logits = self._log_odds(items, behaviors, candidates)
        loss = None
        if labels is not None:
            borne = labels != IGNORED_LABEL
            converted = (labels[borne] == self.config.num_behaviors - 1).to(logits.dtype)
            # A sum and a quotient, since the mean of nothing is not a number.
            total = binary_cross_entropy_with_logits(logits[borne], converted, reduction="sum")
            loss = total / max(converted.numel(), 1)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @abstractmethod
    def _log_odds(self, items: Tensor, behaviors: Tensor, candidates: Tensor) -> Tensor:
        """Return the log-odds `[batch, candidates]`; of padding, anything finite."""

    def _embed_items(self, items: Tensor) -> Tensor:
        return self.item_embeddings(items + 1)

    def _embed_history(self, items: Tensor, behaviors: Tensor) -> Tensor:
        """Return item and behavior embeddings added, zero at padding, `[batch, length, width]`."""
        is_real = items >= 0
        of_behaviors = self.behavior_embeddings(torch.where(is_real, behaviors, 0))
        return self._embed_items(items) + of_behaviors * is_real[..., None]
