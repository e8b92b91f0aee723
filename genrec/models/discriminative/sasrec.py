"""SASRec: self-attention over the history, each state predicting the next item.

Kang and McAuley, *Self-attentive sequential recommendation*, ICDM 2018. The defaults are today's usual form (BERT's
layers, cross-entropy over all items), which is far stronger than the paper's binary cross-entropy; `loss="bce"` is the
latter. Differences from the paper: positions count from the first item instead of the last, so that they do not depend
on the padding; item embeddings are not scaled by the square root of their width.
"""

from huggingface_hub.dataclasses import strict
from torch import Tensor

from .base import NextItemModel
from .configuration import NextItemConfig, TransformerConfig
from .encoder import TransformerEncoder


@strict
class SASRecConfig(NextItemConfig, TransformerConfig):
    """The fields of `NextItemConfig`, `TransformerConfig` and `DiscriminativeConfig`.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> SASRecConfig(num_items=10, num_behaviors=2, behavior_ids=True).num_item_ids
        20
    """

    model_type = "sasrec"

    hidden_size: int = 128
    dropout: float | int = 0.5


class SASRecModel(NextItemModel):
    """SASRec.

    Example:
        >>> import torch
        >>> model = SASRecModel(SASRecConfig(num_items=10, num_behaviors=1, hidden_size=8)).eval()
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=0).shape
        torch.Size([1, 10])
    """

    config_class = SASRecConfig
    config: SASRecConfig

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.encoder = TransformerEncoder(config, config.max_history_items, is_causal=True)
        self.post_init()

    def encode(self, items: Tensor, behaviors: Tensor) -> Tensor:
        """Return the state after each item, `[batch, length, width]`."""
        return self.encoder(self.item_embeddings(self._ids(items, behaviors)), items >= 0)
