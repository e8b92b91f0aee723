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
from .fused_ops import gated, place_products


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
        rows = torch.where(places == 0, 0, behaviors)
        if self.num_experts == 1:
            return self._expert(hidden_states, rows, 0)
        if first_place is None:
            return self._gather(hidden_states, rows, places)
        return self._by_column(hidden_states, rows, first_place)

    def at_place(self, hidden_states: Tensor, place: int, behaviors: Tensor) -> Tensor:
        """Return the output of one place's expert, for tokens that all have that place.

        Args:
            hidden_states: `[..., width]`.
            place: 0 for behavior tokens, l for codes of level l.
            behaviors: 0 for none, i + 1 for behavior i `[...]`.
        """
        rows = behaviors if place else torch.zeros_like(behaviors)
        return self._expert(hidden_states, rows, place if self.num_experts > 1 else 0)

    def _by_column(self, hidden_states: Tensor, rows: Tensor, first_place: int) -> Tensor:
        """Run whole items as one batched product, and the columns of a cut first or last item one by one."""
        num_tokens = hidden_states.shape[1]
        head = min(-first_place % self.num_experts, num_tokens)
        tail = (num_tokens - head) % self.num_experts

        def alone(column: int, expert: int) -> Tensor:
            return self._expert(hidden_states[:, column, None], rows[:, column, None], expert)

        parts = [alone(column, first_place + column) for column in range(head)]
        if num_tokens > head + tail:
            whole = slice(head, num_tokens - tail)
            parts.append(self._whole_items(hidden_states[:, whole], rows[:, whole]))
        parts += [alone(num_tokens - tail + column, column) for column in range(tail)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _whole_items(self, hidden_states: Tensor, rows: Tensor) -> Tensor:
        """Run all experts at once: a strided view of the tokens, `[places, items, width]`, by the stacked weights."""
        tokens = hidden_states.reshape(-1, self.num_experts, hidden_states.shape[-1]).transpose(0, 1)
        of_hidden, tables = self._weights()
        of_behavior = None
        if tables is not None:
            numbers = rows.reshape(-1, self.num_experts).t()
            firsts = torch.arange(self.num_experts, device=rows.device)[:, None] * tables.shape[1]
            of_behavior = nn.functional.embedding(firsts + numbers, tables.flatten(0, 1))
        gate_up = place_products(tokens, of_hidden, of_behavior)
        outputs = place_products(self.dropout(gated(gate_up, self.act_fn)), self.down_proj)
        return outputs.transpose(0, 1).reshape(hidden_states.shape)

    def _expert(self, hidden_states: Tensor, rows: Tensor, expert: int) -> Tensor:
        of_hidden, tables = self._weights(slice(expert, expert + 1))
        gate_up = nn.functional.linear(hidden_states, of_hidden[0])
        if tables is not None:
            gate_up = gate_up + nn.functional.embedding(rows, tables[0])
        return nn.functional.linear(self.dropout(gated(gate_up, self.act_fn)), self.down_proj[expert])

    def _weights(self, experts: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """Return the gate and up weights of the hidden state, and what each behavior adds to their output.

        A matrix times two vectors joined is the sum of two products, and there are only so many behaviors.

        Returns:
            `[experts, 2 * inner, width]`, and `[experts, behaviors + 1, 2 * inner]` or None.
        """
        weights = self.gate_up_proj[experts]
        if self.behavior_embedding is None:
            return weights, None
        behaviors = self.behavior_embedding.weight
        of_hidden, of_behavior = weights.split([weights.shape[2] - behaviors.shape[1], behaviors.shape[1]], dim=2)
        return of_hidden, (of_behavior @ behaviors.t()).transpose(1, 2)

    def _gather(self, hidden_states: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        """Run every expert on every token and keep the one of its place: exact for any padding, and static."""
        outputs = [self._expert(hidden_states, rows, expert) for expert in range(self.num_experts)]
        chosen = places[:, :, None, None].expand(-1, -1, 1, hidden_states.shape[-1])
        return torch.stack(outputs, dim=2).gather(2, chosen).squeeze(2)
