"""BERT4Rec: a bidirectional transformer that guesses hidden items of a history.

Sun, Liu, Wu, Pei, Lin, Ou and Jiang, *BERT4Rec: sequential recommendation with bidirectional encoder representations
from transformer*, CIKM 2019. As there: layers of BERT (post-LN), a head of linear map, GELU and norm, the items' own
embeddings and a bias per item as output. Training rows of which the last item alone is hidden (`last_item_ratio`) are
drawn along with the others instead of being appended.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional

from .cloze import ClozeConfig, ClozeModel, Masked
from .encoder import TransformerEncoder


@strict
class BERT4RecConfig(ClozeConfig):
    """The fields of `ClozeConfig`, `TransformerConfig` and `DiscriminativeConfig`.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> BERT4RecConfig(num_items=10, num_behaviors=2).mask_ratio
        0.2
    """

    model_type = "bert4rec"


class BERT4RecModel(ClozeModel):
    """BERT4Rec.

    Example:
        >>> import torch
        >>> model = BERT4RecModel(BERT4RecConfig(num_items=10, num_behaviors=1, hidden_size=8)).eval()
        >>> history = torch.tensor([[3, 5, -1]])  # two items and a pad
        >>> model.score_items(history, torch.zeros_like(history), asked_behavior=0).shape
        torch.Size([1, 10])
    """

    config_class = BERT4RecConfig
    config: BERT4RecConfig

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__(config)
        self.encoder = TransformerEncoder(config, config.max_history_items + 1, is_causal=False)
        self.head = nn.Linear(config.hidden_size, config.hidden_size)
        self.head_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output_bias = nn.Parameter(torch.zeros(config.num_item_ids))
        self.post_init()

    def encode(self, masked: Masked) -> Tensor:
        """Return the state of each place, `[batch, length, width]`."""
        return self.encoder(self.item_embeddings(self._masked_ids(masked)), masked.items >= 0)

    def _logits_parts(self, states: Tensor, behaviors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        queries = self.head_norm(functional.gelu(self.head(states)))
        return queries, self._item_weights(), self.output_bias
