"""The baseline of GAMER's appendix D: a transformer encodes the history, and the candidate is decoded from it.

Wang et al., arXiv 2511.03155, describe a production model ("DLRM"): two encoder layers over the user's history, two
decoder layers over the candidate. Its size and features are not published; here they are torch's layers over item,
behavior and recency embeddings.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.functional import pad

from .base import RankingModel
from .configuration import RankingConfig


@strict
class CandidateTransformerConfig(RankingConfig):
    """The shape of a candidate transformer.

    Args:
        num_encoder_layers: Layers over the history.
        num_decoder_layers: Layers over the candidate.
        num_attention_heads: Heads of each; must divide `hidden_size`.
        intermediate_size: Inner width of the feed-forward.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> config = CandidateTransformerConfig(num_items=10)
        >>> config.num_encoder_layers, config.num_decoder_layers
        (2, 2)
    """

    model_type = "candidate-transformer"

    num_encoder_layers: int = 2
    num_decoder_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 64

    def _check(self) -> None:
        super()._check()
        for name in ("num_encoder_layers", "num_decoder_layers", "num_attention_heads", "intermediate_size"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{self.num_attention_heads}."
            )


class CandidateTransformerModel(RankingModel):
    """Two encoder layers over the history, two decoder layers over each candidate.

    Before the history stands a learned vector, so that an empty one has something to attend to. Positions count from
    the latest interaction back.

    Args:
        config: A configuration with `num_items`.

    Raises:
        ValueError: If `num_items` is unset.

    Example:
        >>> model = CandidateTransformerModel(CandidateTransformerConfig(num_items=10)).eval()
        >>> history = {"items": torch.tensor([[3, 7]]), "behaviors": torch.tensor([[0, 1]])}
        >>> model(**history, candidates=torch.tensor([[7, 2, 5]])).logits.shape
        torch.Size([1, 3])
    """

    config_class = CandidateTransformerConfig
    config: CandidateTransformerConfig

    def __init__(self, config: CandidateTransformerConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        shape = (width, config.num_attention_heads, config.intermediate_size, config.dropout, "gelu")
        options = {"batch_first": True, "norm_first": True}
        # Row 0 is the vector before the history; row i + 1 is the position of the i-th latest interaction.
        self.position_embeddings = nn.Embedding(1 + config.max_history_items, width)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*shape, **options),  # type: ignore[arg-type]
            config.num_encoder_layers,
            norm=nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*shape, **options),  # type: ignore[arg-type]
            config.num_decoder_layers,
            norm=nn.LayerNorm(width),
        )
        self.head = nn.Linear(width, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def _log_odds(self, items: Tensor, behaviors: Tensor, candidates: Tensor) -> Tensor:
        is_real = items >= 0
        recency = is_real.flip(1).cumsum(dim=1).flip(1) * is_real
        history = self._embed_history(items, behaviors)
        positions = self.position_embeddings(pad(recency, (1, 0)))
        is_pad = pad(~is_real, (1, 0), value=False)
        memory = self.encoder(self.dropout(pad(history, (0, 0, 1, 0)) + positions), src_key_padding_mask=is_pad)
        sees_only_itself = ~torch.eye(candidates.shape[1], dtype=torch.bool, device=candidates.device)
        decoded = self.decoder(
            self.dropout(self._embed_items(candidates)),
            memory,
            tgt_mask=sees_only_itself,
            memory_key_padding_mask=is_pad,
        )
        return self.head(decoded)[..., 0]
