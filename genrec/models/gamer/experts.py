"""Position-and-behavior experts: one feed-forward network per place in an item, told the item's behavior.

GAMER's mixture of experts has no gate. A token's expert is its place in its item, which is known beforehand: a sequence
of whole items is viewed as `[batch, items, places, width]` and all experts run as one batched matrix product over
stacked weights. The release adds an expert for padding; there is none here, and what a padded token gets is never read.
"""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from .configuration_gamer import GamerConfig


class GamerMLP(Qwen3MLP):
    """The plain feed-forward network, one for all places, with dropout on its inner activations."""

    def __init__(self, config: GamerConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the network's output `[..., width]`."""
        inner = self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states)
        return self.down_proj(self.dropout(inner))


class PositionExperts(nn.Module):
    """A feed-forward network per place, each optionally reading the behavior of the token's item.

    With behavior injection the input is the hidden state followed by a behavior embedding: row 0 for behavior tokens
    (which say their behavior themselves), row i + 1 for codes of an item with behavior i (GAMER, equation 5).

    Args:
        config: The model's configuration; without `position_experts` all places share one network.
        injects_behavior: Whether the networks read the behavior.
    """

    def __init__(self, config: GamerConfig, injects_behavior: bool) -> None:
        super().__init__()
        self.num_experts = config.tokens_per_item if config.position_experts else 1
        width, inner = config.hidden_size, config.intermediate_size
        input_width = width
        self.behavior_embedding = None
        if injects_behavior:
            self.behavior_embedding = nn.Embedding(config.num_behaviors + 1, config.behavior_embedding_dim)
            input_width += config.behavior_embedding_dim
        self.gate_up_proj = nn.Parameter(torch.empty(self.num_experts, 2 * inner, input_width))
        self.down_proj = nn.Parameter(torch.empty(self.num_experts, width, inner))
        self.act_fn = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor, places: Tensor, behaviors: Tensor, first_place: int | None) -> Tensor:
        """Return each token's output from the expert of its place.

        Args:
            hidden_states: `[batch, tokens, width]`.
            places: Each token's place in its item `[batch, tokens]`.
            behaviors: 0 for none, i + 1 for behavior i `[batch, tokens]`.
            first_place: The place of column 0 if in every row the places follow each other from there on, so that
                routing needs no data; `None` if rows differ (padding that is no multiple of an item).
        """
        inputs = self._with_behavior(hidden_states, places, behaviors)
        if self.num_experts == 1:
            return self._expert(inputs, 0)
        if first_place is None:
            return self._gather(inputs, places)
        return self._by_column(inputs, first_place)

    def at_place(self, hidden_states: Tensor, place: int, behaviors: Tensor) -> Tensor:
        """Return the output of one place's expert, for tokens that all have that place.

        Args:
            hidden_states: `[..., width]`.
            place: 0 for behavior tokens, l for codes of level l.
            behaviors: 0 for none, i + 1 for behavior i `[...]`.
        """
        inputs = self._with_behavior(hidden_states, torch.full_like(behaviors, place), behaviors)
        return self._expert(inputs, place if self.num_experts > 1 else 0)

    def _with_behavior(self, hidden_states: Tensor, places: Tensor, behaviors: Tensor) -> Tensor:
        if self.behavior_embedding is None:
            return hidden_states
        rows = torch.where(places == 0, 0, behaviors)
        return torch.cat([hidden_states, self.behavior_embedding(rows)], dim=-1)

    def _by_column(self, inputs: Tensor, first_place: int) -> Tensor:
        """Run whole items as one batched product, and the columns of a cut first or last item one by one."""
        num_tokens = inputs.shape[1]
        head = min(-first_place % self.num_experts, num_tokens)
        tail = (num_tokens - head) % self.num_experts
        parts = [self._expert(inputs[:, column, None], first_place + column) for column in range(head)]
        if num_tokens > head + tail:
            parts.append(self._whole_items(inputs[:, head : num_tokens - tail]))
        parts += [self._expert(inputs[:, num_tokens - tail + column, None], column) for column in range(tail)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _whole_items(self, inputs: Tensor) -> Tensor:
        items = inputs.unflatten(1, (-1, self.num_experts))  # [batch, items, places, input width]
        gate, up = torch.einsum("bipw,pfw->bipf", items, self.gate_up_proj).chunk(2, dim=-1)
        inner = self.dropout(self.act_fn(gate) * up)
        return torch.einsum("bipf,pwf->bipw", inner, self.down_proj).flatten(1, 2)

    def _expert(self, inputs: Tensor, expert: int) -> Tensor:
        gate, up = nn.functional.linear(inputs, self.gate_up_proj[expert]).chunk(2, dim=-1)
        return nn.functional.linear(self.dropout(self.act_fn(gate) * up), self.down_proj[expert])

    def _gather(self, inputs: Tensor, places: Tensor) -> Tensor:
        """Run every expert on every token and keep the one of its place: exact for any padding, and static."""
        outputs = torch.stack([self._expert(inputs, expert) for expert in range(self.num_experts)], dim=2)
        chosen = places[:, :, None, None].expand(-1, -1, 1, outputs.shape[-1])
        return outputs.gather(2, chosen).squeeze(2)
