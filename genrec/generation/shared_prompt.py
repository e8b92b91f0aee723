"""GAMER for one prompt and many beams: the prompt is computed once per user and never copied, reordered or widened.

`generate` repeats each prompt for every beam before it computes anything. Here the history's keys and values are
written once; a step then takes the beams of a user as rows of one query block over the same keys. What a beam adds is
written behind the history, once, in a slot of its own, and a boolean matrix says which slots are a beam's ancestors:
when beams are reordered, only that matrix moves. (Shared context and beam path: NVIDIA's `gr_decode_atten`; JD's xGR,
arXiv 2512.11529.)

The behavior asked for is the first step, not part of the history. So the history is whole items, which the experts take
as one batched product, and of its last layer only keys and values are needed.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, log_softmax, scaled_dot_product_attention

from genrec.models.gamer.behavior_masks import MASKS, build_mask, sees_lower_level
from genrec.models.gamer.experts import PositionExperts
from genrec.models.gamer.modeling_gamer import GamerDecoderLayer, GamerForCausalLM, LayerInputs
from genrec.models.gamer.token_layout import TokenLayout, read_layout


class Target(NamedTuple):
    """What is asked of each user, and what it may look at.

    Args:
        behaviors: 1 + the behavior's index `[batch, 1]`.
        positions: The behavior token's rotary position; codes follow it one by one `[batch, 1]`.
        sees: The history tokens that self-attention sees `[batch, history tokens]`.
        sees_lower: The history tokens that cross-level attention sees `[batch, history tokens]`.
    """

    behaviors: Tensor
    positions: Tensor
    sees: Tensor
    sees_lower: Tensor


class SharedPromptDecoder:
    """A model with the history of a batch of users in memory, ready to score beams.

    Steps must be taken in order: first the behavior token as the only beam, then level by level.

    Args:
        model: A `GamerForCausalLM` in evaluation mode.
        input_ids: Left-padded rows of whole items, then the behavior asked for, `[batch, tokens]`.
        attention_mask: 0 at padding, `[batch, tokens]`.
        session_ids: Each token's session, for session-wise models, `[batch, tokens]`.
        max_beams: The most beams that a step will bring.
    """

    def __init__(
        self,
        model: GamerForCausalLM,
        input_ids: Tensor,
        attention_mask: Tensor,
        session_ids: Tensor | None,
        max_beams: int,
    ) -> None:
        self.config = model.config
        self.model = model.model
        self._lm_head = model.lm_head
        self._codebook_sizes = model.config.codebook_sizes or []
        layout = read_layout(self.config, input_ids, attention_mask, session_ids)
        positions = layout.rotary_positions(self.config.tokens_per_item)
        self.target = _read_target(layout, positions)
        self._history_length = input_ids.shape[1] - 1
        room = self._history_length + 1 + max_beams * (self.config.num_levels - 1)
        self._store = _KeyValueStore(self.config.num_hidden_layers, room)
        self._slots = 0
        self._ancestors = torch.ones(len(input_ids), 1, 0, dtype=torch.bool, device=input_ids.device)
        if self._history_length:
            self._read_history(layout, input_ids, positions)

    def step(self, tokens: Tensor, parents: Tensor, level: int) -> Tensor:
        """Feed one token per beam and score the codes that may come next.

        Args:
            tokens: `[batch, beams]`: the behavior token at level 0, else codes of level `level - 1`.
            parents: Which beam of the step before each one continues, `[batch, beams]`; 0 at level 0.
            level: The level to be scored, which is also the place of `tokens` in their item.

        Returns:
            Log-probabilities of the level's codes `[batch, beams, codebook size]`, float32, normalised over the whole
            vocabulary (over the level if the model's `softmax` is `"level"`).
        """
        num_beams = tokens.shape[1]
        older = self._ancestors.gather(1, parents[..., None].expand(-1, -1, self._slots))
        own = torch.eye(num_beams, dtype=torch.bool, device=tokens.device).expand(len(tokens), -1, -1)
        self._ancestors = torch.cat([older, own], dim=2)
        self._slots += num_beams
        hidden_states = self.model.embed_tokens(tokens)
        rotary = self.model.rotary_emb(hidden_states, self.target.positions + level)
        behaviors = self.target.behaviors.expand(-1, num_beams)
        sees = torch.cat([self.target.sees[:, None].expand(-1, num_beams, -1), self._ancestors], dim=2)
        for number, layer in enumerate(self.model.layers):
            hidden_states = self._layer_step(number, layer, hidden_states, rotary, behaviors, sees, level)
        return self._log_probabilities(self.model.norm(hidden_states), level)

    def _layer_step(
        self,
        number: int,
        layer: GamerDecoderLayer,
        hidden_states: Tensor,
        rotary: tuple[Tensor, Tensor],
        behaviors: Tensor,
        sees: Tensor,
        place: int,
    ) -> Tensor:
        queries, keys, values = layer.self_attn.project(layer.input_layernorm(hidden_states), rotary)
        end = self._history_length + self._slots
        keys, values = self._store.append(number, keys, values, end)
        attended = attend_as_one_block(queries, keys, values, sees, layer.self_attn.scaling)
        hidden_states = hidden_states + layer.self_attn.o_proj(attended)
        if layer.cross_attn is not None and self._history_length:
            normed = layer.cross_attention_layernorm(hidden_states)
            queries, _, _ = layer.cross_attn.project(normed, rotary, behaviors)
            keys, values = self._store.history(layer.cross_attn.layer_idx, self._history_length)
            sees_lower = self.target.sees_lower[:, None].expand(-1, queries.shape[2], -1)
            attended = attend_as_one_block(queries, keys, values, sees_lower, layer.cross_attn.scaling)
            hidden_states = hidden_states + layer.cross_attn.finish(attended, normed, sees_lower.any(dim=-1))
        normed = layer.post_attention_layernorm(hidden_states)
        if isinstance(layer.mlp, PositionExperts):
            return hidden_states + layer.mlp.at_place(normed, place, behaviors)
        return hidden_states + layer.mlp(normed)

    def _log_probabilities(self, hidden_states: Tensor, level: int) -> Tensor:
        start = self.config.level_offsets[level]
        block = slice(start, start + self._codebook_sizes[level])
        if self.config.softmax == "level":
            return log_softmax(linear(hidden_states, self._lm_head.weight[block]).float(), dim=-1)
        return log_softmax(self._lm_head(hidden_states).float(), dim=-1)[..., block]

    def _read_history(self, layout: TokenLayout, input_ids: Tensor, positions: Tensor) -> None:
        """Compute the history's keys and values, with the padding moved behind it."""
        columns = _moved_to_the_front(layout.real[:, :-1])
        history = TokenLayout._make(None if part is None else part.gather(1, columns) for part in layout)
        self.target = self.target._replace(
            sees=self.target.sees.gather(1, columns), sees_lower=self.target.sees_lower.gather(1, columns)
        )
        hidden_states = self.model.embed_tokens(input_ids.gather(1, columns))
        inputs = self._layer_inputs(history, hidden_states, positions.gather(1, columns))
        *layers, last = self.model.layers
        for layer in layers:
            hidden_states = layer(hidden_states, inputs=inputs, past_key_values=self._store)
        self._read_last_layer(last, hidden_states, inputs)

    def _read_last_layer(self, layer: GamerDecoderLayer, hidden_states: Tensor, inputs: LayerInputs) -> None:
        """Compute what later tokens see of the last layer: its keys and values, and nothing behind them."""
        normed = layer.input_layernorm(hidden_states)
        if layer.cross_attn is None:
            _, keys, values = layer.self_attn.project(normed, inputs.rotary)
            self._store.update(keys, values, layer.self_attn.layer_idx)
            return
        output, _ = layer.self_attn(normed, inputs.rotary, inputs.self_mask, self._store)
        normed = layer.cross_attention_layernorm(hidden_states + output)
        _, keys, values = layer.cross_attn.project(normed, inputs.rotary, inputs.behaviors)
        self._store.update(keys, values, layer.cross_attn.layer_idx)

    def _layer_inputs(self, history: TokenLayout, hidden_states: Tensor, positions: Tensor) -> LayerInputs:
        """Return the layers' inputs; with padding last, the kernel's own causal mask hides it from every real token."""
        is_causal = self.config._attn_implementation == "sdpa" and not self.config.session_wise
        cross_mask = has_key = None
        if self.config.cross_level_layers:
            has_key = sees_lower_level(history.levels, history.sessions, history.real)
            cross_mask = self._mask("cross_level", history, has_key, hidden_states)
        return LayerInputs(
            rotary=self.model.rotary_emb(hidden_states, positions),
            self_mask=None if is_causal else self._mask("causal", history, history.real, hidden_states),
            cross_mask=cross_mask,
            has_key=has_key,
            places=history.places,
            behaviors=history.behaviors,
            first_place=0,
        )

    def _mask(self, name: str, layout: TokenLayout, sees_any: Tensor, hidden_states: Tensor) -> Any:
        name = f"session_{name}" if self.config.session_wise else name
        visible = MASKS[name](layout.items, layout.levels, layout.sessions)
        implementation, dtype = self.config._attn_implementation, hidden_states.dtype
        return build_mask(visible, layout.real, sees_any, hidden_states.shape[1], implementation, dtype)


class _KeyValueStore:
    """Keys and values of each attention: the history's, then room for what the beams add.

    To the layers it is a cache, of which they only call `update`.

    Args:
        num_layers: The model's layers; self-attention has the slots below this number and grows, cross-level
            attention those from it on and does not.
        room: How many tokens a slot that grows can hold.
    """

    def __init__(self, num_layers: int, room: int) -> None:
        self._num_layers = num_layers
        self._room = room
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def update(self, keys: Tensor, values: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        """Store the history's keys and values `[batch, heads, tokens, head dim]` and return them."""
        if slot >= self._num_layers:
            self._keys[slot], self._values[slot] = keys, values
        else:
            self.append(slot, keys, values, keys.shape[2])
        return keys, values

    def append(self, slot: int, keys: Tensor, values: Tensor, end: int) -> tuple[Tensor, Tensor]:
        """Write keys and values in the places before `end`, and return all before `end`, as views."""
        if slot not in self._keys:
            self._keys[slot] = keys.new_empty(*keys.shape[:2], self._room, keys.shape[3])
            self._values[slot] = torch.empty_like(self._keys[slot])
        places = slice(end - keys.shape[2], end)
        self._keys[slot][:, :, places] = keys
        self._values[slot][:, :, places] = values
        return self._keys[slot][:, :, :end], self._values[slot][:, :, :end]

    def history(self, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """Return the history's keys and values."""
        return self._keys[slot][:, :, :length], self._values[slot][:, :, :length]


def attend_as_one_block(queries: Tensor, keys: Tensor, values: Tensor, sees: Tensor, scaling: float) -> Tensor:
    """Attend with all beams and heads that share a key-value head as the rows of one query block.

    Neither keys nor values are repeated, for a beam or for a head.

    Args:
        queries: `[batch, heads, beams, head dim]`.
        keys: `[batch, key-value heads, keys, head dim]`.
        values: Like `keys`.
        sees: `[batch, beams, keys]` bool. A beam that sees nothing gets an undefined, perhaps not finite, row.
        scaling: Multiplies the scores.

    Returns:
        The heads' outputs side by side, `[batch, beams, heads * head dim]`.
    """
    groups = queries.shape[1] // keys.shape[1]
    block = queries.unflatten(1, (-1, groups)).flatten(2, 3)  # [batch, key-value heads, groups * beams, head dim]
    mask = sees[:, None].repeat(1, 1, groups, 1)
    output = scaled_dot_product_attention(block, keys, values, attn_mask=mask, scale=scaling)
    return output.unflatten(2, (groups, -1)).permute(0, 3, 1, 2, 4).flatten(2)


def _read_target(layout: TokenLayout, positions: Tensor) -> Target:
    """Split the last column, the behavior asked for, from the history before it."""
    asked = layout.last(1)
    sees, levels = layout.real[:, :-1], layout.levels[:, :-1]
    if layout.sessions is not None:
        sees = sees & (layout.sessions[:, :-1] < layout.sessions[:, -1:])
    sees_lower = sees & (levels >= 0) & (levels < asked.levels)
    return Target(asked.behaviors, positions[:, -1:], sees, sees_lower)


def _moved_to_the_front(real: Tensor) -> Tensor:
    """Return the columns that rotate each left-padded row so that its padding comes last, `[batch, tokens]`."""
    columns = torch.arange(real.shape[1], device=real.device)
    return (columns + (~real).sum(dim=1, keepdim=True)) % real.shape[1]
