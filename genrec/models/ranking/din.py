"""DIN: the candidate weighs each earlier interaction, and their weighted sum is the user.

Zhou et al., *Deep Interest Network for Click-Through Rate Prediction*, KDD 2018. The weights come from a small network,
the local activation unit, and are not normalised (section 4.3): their sum tells how much of the history is about the
candidate. Where we differ: the unit reads the elementwise product and the difference, where the paper's figure has the
outer product; its batch statistics leave padding out; no mini-batch aware regularisation (weight decay instead).
"""

import dataclasses

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from .base import RankingModel
from .configuration import RankingConfig

ACTIVATIONS = ("dice", "prelu")


@strict
class DINConfig(RankingConfig):
    """The shape of a DIN.

    Args:
        attention_sizes: Inner widths of the local activation unit.
        head_sizes: Inner widths of the network on user and candidate.
        activation: `"dice"`, which switches at the mean of its input, or `"prelu"`, which switches at 0.

    Raises:
        ValueError: If a field has a value outside its range or is misspelt.

    Example:
        >>> DINConfig(num_items=10).attention_sizes
        [36]
    """

    model_type = "din"

    attention_sizes: list[int] = dataclasses.field(default_factory=lambda: [36])
    head_sizes: list[int] = dataclasses.field(default_factory=lambda: [64, 32])
    activation: str = "dice"

    def _check(self) -> None:
        super()._check()
        self._require(self.activation in ACTIVATIONS, "activation", f"one of {', '.join(ACTIVATIONS)}")
        for name in ("attention_sizes", "head_sizes"):
            self._require(min(getattr(self, name), default=1) >= 1, name, "widths of at least 1")


class DINModel(RankingModel):
    """DIN (Zhou et al., KDD 2018).

    Args:
        config: A configuration with `num_items`.

    Raises:
        ValueError: If `num_items` is unset.

    Example:
        >>> model = DINModel(DINConfig(num_items=10)).eval()
        >>> history = {"items": torch.tensor([[3, 7]]), "behaviors": torch.tensor([[0, 1]])}
        >>> model(**history, candidates=torch.tensor([[7, 2, 5]])).logits.shape
        torch.Size([1, 3])
    """

    config_class = DINConfig
    config: DINConfig

    def __init__(self, config: DINConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.attention = _network(4 * width, config.attention_sizes, config)
        self.head = _network(2 * width, config.head_sizes, config)
        self.post_init()

    def attention_weights(self, items: Tensor, behaviors: Tensor, candidates: Tensor) -> Tensor:
        """Return the local activation unit's weights, not normalised, 0 at padding `[batch, candidates, length]`."""
        return self._weights(items, self._embed_history(items, behaviors), candidates)

    def _log_odds(self, items: Tensor, behaviors: Tensor, candidates: Tensor) -> Tensor:
        history = self._embed_history(items, behaviors)
        users = self._weights(items, history, candidates) @ history
        asked = self._embed_items(candidates)
        is_real = candidates >= 0
        odds = self.head(torch.cat([users, asked], dim=2)[is_real])[:, 0]
        return odds.new_zeros(candidates.shape).masked_scatter(is_real, odds)

    def _weights(self, items: Tensor, history: Tensor, candidates: Tensor) -> Tensor:
        """Ask the unit about the pairs of a candidate and an interaction that are both real, and no others."""
        is_pair = (candidates >= 0)[:, :, None] & (items >= 0)[:, None, :]
        rows, asking, seen = is_pair.nonzero(as_tuple=True)
        asked, met = self._embed_items(candidates)[rows, asking], history[rows, seen]
        weights = self.attention(torch.cat([met, asked, met - asked, met * asked], dim=1))[:, 0]
        return weights.new_zeros(is_pair.shape).masked_scatter(is_pair, weights)


class Dice(nn.Module):
    """PReLU whose switch is smooth and stands at the mean of its input (equation 6 of the paper).

    `p(s) s + (1 - p(s)) alpha s` with `p` the sigmoid of the input normalised over the batch, or, in evaluation, by
    running statistics. A batch of one is normalised by these as well.

    Args:
        width: Features.

    Example:
        >>> Dice(2).eval()(torch.tensor([[0.0, 100.0]])).tolist()  # mean 0 and variance 1 before training
        [[0.0, 100.0]]
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activations `[rows, width]`."""
        learns = self.training and len(inputs) > 1
        normed = batch_norm(inputs, self.running_mean, self.running_var, training=learns, momentum=0.1)
        share = normed.sigmoid()
        return inputs * (share + (1 - share) * self.alpha)


def _network(width: int, sizes: list[int], config: DINConfig) -> nn.Sequential:
    """Return linear maps with the activation between them, down to one number."""
    layers: list[nn.Module] = []
    for size in sizes:
        activation = Dice(size) if config.activation == "dice" else nn.PReLU(size)
        layers += [nn.Linear(width, size), activation, nn.Dropout(config.dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))
