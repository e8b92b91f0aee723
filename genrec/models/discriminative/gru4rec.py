"""GRU4Rec: a recurrent network over the history, each state predicting the next item.

Hidasi, Karatzoglou, Baltrunas and Tikk, *Session-based recommendations with recurrent neural networks*, ICLR 2016.
Trained on all items instead of the other items of a batch (the paper's sampling is a saving that a catalog of this size
does not need), with a linear map from the state back to the width of the items, as GAMER's baseline has it.
"""

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import initialization as init

from .base import NextItemModel
from .configuration import NextItemConfig


@strict
class GRU4RecConfig(NextItemConfig):
    """The fields of `NextItemConfig` and `DiscriminativeConfig`, and two more.

    Args:
        num_hidden_layers: Recurrent layers.
        recurrent_size: Width of their state.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> GRU4RecConfig(num_items=10, num_behaviors=2).recurrent_size
        128
    """

    model_type = "gru4rec"

    dropout: float | int = 0.3
    num_hidden_layers: int = 1
    recurrent_size: int = 128

    def _check(self) -> None:
        super()._check()
        for name in ("num_hidden_layers", "recurrent_size"):
            self._require(getattr(self, name) >= 1, name, "at least 1")


class GRU4RecModel(NextItemModel):
    """GRU4Rec.

    The network has no biases, so that its state stays zero over pads at the left of a history.

    Example:
        >>> import torch
        >>> model = GRU4RecModel(GRU4RecConfig(num_items=10, num_behaviors=1, hidden_size=8)).eval()
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=0).shape
        torch.Size([1, 10])
    """

    config_class = GRU4RecConfig
    config: GRU4RecConfig

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)
        self.recurrent = nn.GRU(
            config.hidden_size, config.recurrent_size, config.num_hidden_layers, bias=False, batch_first=True
        )
        self.head = nn.Linear(config.recurrent_size, config.hidden_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.xavier_normal_(module.weight)
            init.zeros_(module.weight[0])
        elif isinstance(module, nn.Linear):
            init.xavier_normal_(module.weight)
        elif isinstance(module, nn.GRU):
            for weights in module.parameters():
                init.xavier_uniform_(weights)

    def encode(self, items: Tensor, behaviors: Tensor) -> Tensor:
        """Return the state after each item, `[batch, length, width]`."""
        embeddings = self.dropout(self.item_embeddings(self._ids(items, behaviors)))
        return self.head(self.recurrent(embeddings)[0])
