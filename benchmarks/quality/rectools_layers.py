"""RecTools' layer and initial weights in our SASRec, to tell which of the two makes a difference between the models.

RecTools' layer is that of Kang and McAuley's released code, written here from its equations:

    query = norm(x);  y = query + attention(query, keys=x, values=x);  z = norm(y);  output = z + dropout(ffn(z))

with dropout also inside the feed-forward and not after attention. Its matrices, embeddings included, are drawn from
Xavier's normal distribution.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.models.discriminative import SASRecModel
from genrec.models.discriminative.encoder import EncoderLayer

PARTS = (WEIGHTS, LAYERS) = ("weights", "layers")


class RecToolsLayer(EncoderLayer):
    """A layer with the weights of `EncoderLayer` and the residuals, norms and dropout of RecTools' SASRec."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the layer's output, `[batch, length, width]`; `mask` is `[batch, 1, length, length]`."""
        queries = self.attention_norm(states)
        parts = zip(
            (queries, states, states), self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3), strict=True
        )  # of query, key and value
        heads = [self._heads(functional.linear(*part)) for part in parts]
        rate = self.attention_dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], mask, dropout_p=rate)
        inner = self.feed_forward_norm(queries + self.out_proj(mixed.transpose(1, 2).flatten(2)))
        return inner + self.dropout(self.down_proj(self.dropout(self.activation(self.up_proj(inner)))))

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def make_like_rectools(model: SASRecModel, parts: tuple[str, ...]) -> None:
    """Change a fresh model in place.

    Args:
        model: A model with `norm_first`, as RecTools has a norm after the last layer.
        parts: `"weights"` draws the matrices anew, `"layers"` replaces the layers and keeps their weights.
    """
    if WEIGHTS in parts:
        draw_like_rectools(model)
    if LAYERS in parts:
        layers = nn.ModuleList(RecToolsLayer(model.config) for _ in model.encoder.layers)
        layers.load_state_dict(model.encoder.layers.state_dict())
        model.encoder.layers = layers


@torch.no_grad()
def draw_like_rectools(model: nn.Module) -> None:
    """Draw all matrices anew from Xavier's normal distribution, as RecTools does when training starts."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_normal_(parameter)
