"""GAMER for one prompt and many beams: the prompt is computed once per user and never copied, reordered or widened.

`generate` repeats each prompt for every beam before it computes anything. Here the history's keys and values are
written once; a step then takes the beams of a user as rows of one query block over the same keys. What a beam adds is
written behind the history, once, in a slot of its own, and a boolean matrix says which slots are a beam's ancestors:
when beams are reordered, only that matrix moves. (Shared context and beam path: NVIDIA's `gr_decode_atten`; JD's xGR,
arXiv 2512.11529.) Several behaviors asked of one user are more beams over the same history.

The behaviors asked for are the first step, not part of the history. So the history is whole items, which the experts
take as one batched product, and of its last layer only keys and values are needed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, log_softmax

from genrec.generation.attention_blocks import (
    KeyValueStore,
    additive,
    attend_as_one_block,
    block_mask,
    project_queries,
)
from genrec.generation.mixture_scores import MixtureScores
from genrec.generation.prompts import Prompts
from genrec.models.gamer.attention import Rotary
from genrec.models.gamer.backbone import GamerDecoderLayer
from genrec.models.gamer.behavior_masks import MASKS, build_mask, sees_lower_level
from genrec.models.gamer.experts import PositionExperts
from genrec.models.gamer.modeling_gamer import GamerForCausalLM
from genrec.models.gamer.token_layout import TokenLayout, read_layout

Attend = Callable[[Any, Tensor], Tensor]


class Asked(NamedTuple):
    """What is asked of each user, and what it may look at.

    Args:
        behaviors: 1 + the behavior's index `[batch, targets]`.
        positions: The behavior tokens' rotary position; codes follow it one by one `[batch, 1]`.
        sees: The history tokens that self-attention sees `[batch, history tokens]`.
        sees_lower: The history tokens that cross-level attention sees `[batch, targets, history tokens]`.
    """

    behaviors: Tensor
    positions: Tensor
    sees: Tensor
    sees_lower: Tensor


class Stage(NamedTuple):
    """The tokens that go through the layers together: a history, or one token per beam.

    Args:
        attend: Runs self-attention up to the heads' outputs, and stores what later tokens see.
        attend_lower: The same for cross-level attention.
        sees_lower: Which tokens see anything there, None if nothing can be seen `[batch, tokens]`.
        feed_forward: Runs a layer's network `(layer, normed) -> output`.
    """

    attend: Attend
    attend_lower: Attend
    sees_lower: Tensor | None
    feed_forward: Callable[[GamerDecoderLayer, Tensor], Tensor]


class SharedPromptDecoder:
    """A model with the history of a batch of users in memory, ready to score beams.

    A request is a user and a behavior asked for; the requests of a user are adjacent. Steps must be taken in order:
    first the behavior token as each request's only beam, then level by level.

    Args:
        model: A `GamerForCausalLM` in evaluation mode.
        prompts: The histories and what is asked.
        max_beams: The most beams per request that a step will bring.
    """

    def __init__(self, model: GamerForCausalLM, prompts: Prompts, max_beams: int) -> None:
        self.config = model.config
        self.model = model.model
        self._lm_head = model.lm_head
        self._codebook_sizes = model.config.codebook_sizes or []
        self._groups = self.model.layers[0].self_attn.num_key_value_groups
        self._history_length = prompts.input_ids.shape[1] - 1
        layout = _layout_of(model.config, prompts)
        positions = layout.rotary_positions(self.config.tokens_per_item)
        self.asked = _read_asked(layout, positions, self._history_length)
        batch_size, self._num_targets = prompts.behaviors.shape
        num_slots = self._num_targets * (1 + max_beams * (self.config.num_levels - 1))
        self._mixture = MixtureScores(model, prompts) if model.config.has_mixture else None
        self._time_context = _time_context_of(model, layout, prompts)
        self._store = KeyValueStore(self._history_length + num_slots)
        self._num_slots = 0
        self._ancestors = torch.ones(
            batch_size, self._num_targets, 0, dtype=torch.bool, device=prompts.input_ids.device
        )
        if self._history_length:
            self._read_history(layout, prompts.input_ids[:, :-1], positions)

    def step(self, tokens: Tensor, parents: Tensor, level: int) -> Tensor:
        """Feed one token per beam and score the codes that may come next.

        Args:
            tokens: `[requests, beams]`: the behavior token at level 0, else codes of level `level - 1`.
            parents: Which beam of the step before each one continues, `[requests, beams]`; 0 at level 0.
            level: The level to be scored, which is also the place of `tokens` in their item.

        Returns:
            Log-probabilities of the level's codes `[requests, beams, codebook size]`, float32, normalised over the
            whole vocabulary (over the level if the model's `softmax` is `"level"`).
        """
        start = self._history_length + self._num_slots
        self._add_slots(parents)
        queries = tokens.view(len(self._ancestors), -1)  # a user's requests side by side
        hidden_states = self.model.embed_tokens(queries)
        if level == 0 and self._time_context is not None:
            hidden_states = hidden_states + self._time_context[:, -1:]  # the same moment for all behaviors asked for
        stage = self._beam_stage(hidden_states, tokens.shape[1], start, level)
        for layer in self.model.layers:
            hidden_states = _run_layer(layer, hidden_states, stage)
        hidden_states = self.model.norm(hidden_states).view(*tokens.shape, -1)
        log_probabilities = self._log_probabilities(hidden_states, level)
        if self._mixture is None:
            return log_probabilities
        return self._mixture.step(tokens, parents, hidden_states, log_probabilities, level)

    def _add_slots(self, parents: Tensor) -> None:
        """Give each beam a slot, and its parent's ancestors."""
        num_parents = self._ancestors.shape[1] // self._num_targets
        before = torch.arange(len(parents), device=parents.device) % self._num_targets * num_parents
        rows = (parents + before[:, None]).view(len(self._ancestors), -1, 1)
        older = self._ancestors.gather(1, rows.expand(-1, -1, self._num_slots))
        own = torch.eye(rows.shape[1], dtype=torch.bool, device=parents.device).expand(len(older), -1, -1)
        self._ancestors = torch.cat([older, own], dim=2)
        self._num_slots += rows.shape[1]

    def _beam_stage(self, hidden_states: Tensor, num_beams: int, start: int, level: int) -> Stage:
        num_queries = hidden_states.shape[1]
        sees = torch.cat([self.asked.sees[:, None].expand(-1, num_queries, -1), self._ancestors], dim=2)
        mask = block_mask(sees, self._groups, hidden_states.dtype)
        sees_lower = self.asked.sees_lower.repeat_interleave(num_beams, dim=1)
        mask_lower = block_mask(sees_lower, self._groups, hidden_states.dtype)
        behaviors = self.asked.behaviors.repeat_interleave(num_beams, dim=1)
        rotary = self.model.rotary_emb(hidden_states, self.asked.positions + level)

        def attend(attention: Any, states: Tensor) -> Tensor:
            queries, keys, values = attention.project(states, rotary)
            self._store.append(attention.layer_idx, keys, values, start)
            keys, values = self._store.get(attention.layer_idx, start + num_queries)
            return attend_as_one_block(queries, keys, values, mask, attention.scaling)

        def attend_lower(attention: Any, states: Tensor) -> Tensor:
            queries = project_queries(attention, states, rotary, behaviors)
            keys, values = self._store.get(attention.layer_idx, self._history_length)
            return attend_as_one_block(queries, keys, values, mask_lower, attention.scaling)

        def feed_forward(layer: GamerDecoderLayer, states: Tensor) -> Tensor:
            if isinstance(layer.mlp, PositionExperts):
                return layer.mlp.at_place(states, level, behaviors)
            return layer.mlp(states)

        return Stage(attend, attend_lower, sees_lower.any(dim=2) if self._history_length else None, feed_forward)

    def _log_probabilities(self, hidden_states: Tensor, level: int) -> Tensor:
        """Turn the beams' hidden states `[requests, beams, width]` into what `step` returns."""
        start = self.config.level_offsets[level]
        block = slice(start, start + self._codebook_sizes[level])
        if self.config.softmax == "level":
            return log_softmax(linear(hidden_states, self._lm_head.weight[block]).float(), dim=-1)
        return log_softmax(self._lm_head(hidden_states).float(), dim=-1)[..., block]

    def _read_history(self, layout: TokenLayout, input_ids: Tensor, positions: Tensor) -> None:
        """Compute the history's keys and values, with the padding moved behind it."""
        columns = _moved_to_the_front(layout.real[:, : self._history_length])
        history = TokenLayout._make(None if part is None else part.gather(1, columns) for part in layout)
        self.asked = self.asked._replace(
            sees=self.asked.sees.gather(1, columns),
            sees_lower=self.asked.sees_lower.gather(2, columns[:, None].expand_as(self.asked.sees_lower)),
        )
        hidden_states = self.model.embed(input_ids.gather(1, columns), history)
        if self._time_context is not None:
            moved = columns[..., None].expand(-1, -1, hidden_states.shape[2])
            hidden_states = hidden_states + self._time_context[:, :-1].gather(1, moved)
        rotary = self.model.rotary_emb(hidden_states, positions.gather(1, columns))
        stage = self._history_stage(history, hidden_states, rotary)
        *layers, last = self.model.layers
        for layer in layers:
            hidden_states = _run_layer(layer, hidden_states, stage)
        self._read_last_layer(last, hidden_states, stage, rotary, history.behaviors)

    def _read_last_layer(
        self, layer: GamerDecoderLayer, hidden_states: Tensor, stage: Stage, rotary: Rotary, behaviors: Tensor
    ) -> None:
        """Compute what later tokens see of the last layer: its keys and values, and nothing behind them."""
        states = layer.input_layernorm(hidden_states)
        if layer.cross_attn is None:
            _, keys, values = layer.self_attn.project(states, rotary)
            self._store.append(layer.self_attn.layer_idx, keys, values, 0)
            return
        attended = stage.attend(layer.self_attn, states)
        states = layer.cross_attention_layernorm(hidden_states + layer.self_attn.o_proj(attended))
        _, keys, values = layer.cross_attn.project(states, rotary, behaviors)
        self._store.put(layer.cross_attn.layer_idx, keys, values)

    def _history_stage(self, history: TokenLayout, hidden_states: Tensor, rotary: Rotary) -> Stage:
        # With padding last, the kernel's own causal mask hides it from every real token.
        is_causal = self.config._attn_implementation == "sdpa" and not self.config.session_wise
        mask = None if is_causal else self._mask("causal", history, history.real, hidden_states)
        sees_lower = sees_lower_level(history.levels, history.sessions, history.real)
        mask_lower = None
        if self.config.cross_level_layers:
            mask_lower = self._mask("cross_level", history, sees_lower, hidden_states)

        def attend(attention: Any, states: Tensor) -> Tensor:
            queries, keys, values = attention.project(states, rotary)
            self._store.append(attention.layer_idx, keys, values, 0)
            return attention.attend(queries, keys, values, mask)[0]

        def attend_lower(attention: Any, states: Tensor) -> Tensor:
            queries, keys, values = attention.project(states, rotary, history.behaviors)
            self._store.put(attention.layer_idx, keys, values)
            return attention.attend(queries, keys, values, mask_lower)[0]

        def feed_forward(layer: GamerDecoderLayer, states: Tensor) -> Tensor:
            if isinstance(layer.mlp, PositionExperts):
                return layer.mlp(states, history.places, history.behaviors, 0)
            return layer.mlp(states)

        return Stage(attend, attend_lower, sees_lower, feed_forward)

    def _mask(self, name: str, layout: TokenLayout, sees_any: Tensor, hidden_states: Tensor) -> Any:
        name = f"session_{name}" if self.config.session_wise else name
        visible = MASKS[name](layout.items, layout.levels, layout.sessions)
        implementation, dtype = self.config._attn_implementation, hidden_states.dtype
        mask = build_mask(visible, layout.real, sees_any, hidden_states.shape[1], implementation, dtype)
        return additive(mask, dtype) if implementation == "sdpa" else mask


def _run_layer(layer: GamerDecoderLayer, hidden_states: Tensor, stage: Stage) -> Tensor:
    """Return the layer's output, as its `forward` does, with the stage's attention and network."""
    attended = stage.attend(layer.self_attn, layer.input_layernorm(hidden_states))
    hidden_states = hidden_states + layer.self_attn.o_proj(attended)
    if layer.cross_attn is not None and stage.sees_lower is not None:
        states = layer.cross_attention_layernorm(hidden_states)
        attended = stage.attend_lower(layer.cross_attn, states)
        hidden_states = hidden_states + layer.cross_attn.finish(attended, states, stage.sees_lower)
    return hidden_states + stage.feed_forward(layer, layer.post_attention_layernorm(hidden_states))


def _layout_of(config: Any, prompts: Prompts) -> TokenLayout:
    """Return the layout of each history and, in the columns behind it, of the behaviors asked for."""
    num_more = prompts.behaviors.shape[1] - 1
    mask, sessions = (
        None if part is None else torch.cat([part, part[:, -1:].expand(-1, num_more)], dim=1)
        for part in (prompts.attention_mask, prompts.session_ids)
    )
    return read_layout(config, torch.cat([prompts.input_ids[:, :-1], prompts.behaviors], dim=1), mask, sessions)


def _time_context_of(model: GamerForCausalLM, layout: TokenLayout, prompts: Prompts) -> Tensor | None:
    """Return what a model that knows times adds to the history's tokens and to the one asked for."""
    if model.model.time_context is None or prompts.event_times is None:
        return None
    num_tokens = prompts.input_ids.shape[1]  # of several behaviors asked for, the first
    one = TokenLayout._make(None if part is None else part[:, :num_tokens] for part in layout)
    return model.model.time_context(one, prompts.event_times)


def _read_asked(layout: TokenLayout, positions: Tensor, history_length: int) -> Asked:
    """Split the last columns, the behaviors asked for, from the history before them."""
    levels, asked_levels = layout.levels[:, :history_length], layout.levels[:, history_length:]
    sees = layout.real[:, :history_length]
    if layout.sessions is not None:
        sees = sees & (layout.sessions[:, :history_length] < layout.sessions[:, -1:])
    is_lower = (levels[:, None] >= 0) & (levels[:, None] < asked_levels[..., None])
    return Asked(
        behaviors=layout.behaviors[:, history_length:],
        positions=positions[:, history_length : history_length + 1],
        sees=sees,
        sees_lower=sees[:, None] & is_lower,
    )


def _moved_to_the_front(real: Tensor) -> Tensor:
    """Return the columns that rotate each left-padded row so that its padding comes last, `[batch, tokens]`."""
    columns = torch.arange(real.shape[1], device=real.device)
    return (columns + (~real).sum(dim=1, keepdim=True)) % real.shape[1]
