"""GAMER: generative recommendation over several behaviors, on transformers' Qwen3 parts.

Wang et al., *Generative Sequential Recommendation via Hierarchical Behavior Modeling*, arXiv 2511.03155. A user's
history is written as items `[behavior, c1, ..., cL]`, and the next item's codes are predicted. Each layer has causal
self-attention, in some layers cross-level behavior attention, and a feed-forward network per place in an item.

Where we differ from the released code: a token without a visible key in cross-level attention gets zero instead of an
average over the whole row; the target behavior token carries its own behavior at inference; there is no expert for
padding; the norm before the feed-forward is `post_attention_layernorm`, so that with all extras off the weights are
those of `Qwen3ForCausalLM`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import CrossLevelAttention, Rotary, SelfAttention
from .behavior_masks import MASKS, MaskFunction, build_mask, sees_lower_level, within_segments
from .configuration_gamer import FIRST_BEHAVIOR, PAD, GamerConfig
from .cross_level_selection import CrossLevelSelection, select
from .experts import GamerMLP, PositionExperts
from .fused_ops import RMSNorm
from .generating import GamerGenerationMixin, default_generation_config
from .item_embedding import ItemEmbedding
from .item_history import ItemHistory, ItemQueries, query_weights, read_item_history
from .loss import IGNORED_LABEL, next_token_loss
from .mixture import MixtureHead
from .pointers import Candidates, ScaledLinear, as_candidates
from .prefix_mixture import log_likelihoods
from .time_context import TimeContext
from .token_layout import TokenLayout, read_layout, token_places


class LayerInputs(NamedTuple):
    """What every layer is told about the tokens it gets, computed once per forward pass.

    Args:
        rotary: Cosines and sines of the rotary positions `[batch, tokens, head dim]`.
        self_mask: Self-attention's mask, or `None` where the kernel's own causal mask is enough.
        cross_mask: Cross-level attention's mask, or `None` without such layers.
        has_key: Which tokens see any key in cross-level attention, or `None` without such layers `[batch, tokens]`.
        places: `[batch, tokens]`.
        behaviors: `[batch, tokens]`.
        first_place: The first column's place if all rows' places run on from there, else `None`.
        selection: The tokens that cross-level attention is about, in place of `cross_mask` and `has_key`; or `None`.
    """

    rotary: Rotary
    self_mask: Any
    cross_mask: Any
    has_key: Tensor | None
    places: Tensor
    behaviors: Tensor
    first_place: int | None
    selection: CrossLevelSelection | None = None


class GamerDecoderLayer(GradientCheckpointingLayer):
    """One layer: self-attention, perhaps cross-level attention, and the feed-forward experts, each added back."""

    def __init__(self, config: GamerConfig, layer_idx: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = SelfAttention(config, layer_idx)
        self.input_layernorm = RMSNorm(width, eps=eps)
        self.cross_attn = None
        if layer_idx in (config.cross_level_layers or ()):
            self.cross_attn = CrossLevelAttention(config, layer_idx)
            self.cross_attention_layernorm = RMSNorm(width, eps=eps)
        injects_behavior = layer_idx in (config.behavior_injection_layers or ())
        self.has_experts = config.position_experts or injects_behavior
        self.mlp = PositionExperts(config, injects_behavior) if self.has_experts else GamerMLP(config)
        self.post_attention_layernorm = RMSNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden_states: Tensor, inputs: LayerInputs, past_key_values: Cache | None = None, use_cache: bool = False
    ) -> Tensor:
        """Return the layer's output `[batch, tokens, width]`."""
        normed = self.input_layernorm(hidden_states)
        output, _ = self.self_attn(normed, inputs.rotary, inputs.self_mask, past_key_values)
        hidden_states = hidden_states + self.dropout(output)
        if self.cross_attn is not None:
            normed = self.cross_attention_layernorm(hidden_states)
            output = self.cross_attn(
                normed,
                inputs.rotary,
                inputs.behaviors,
                inputs.cross_mask,
                inputs.has_key,
                past_key_values,
                inputs.selection,
            )
            hidden_states = hidden_states + self.dropout(output)
        normed = self.post_attention_layernorm(hidden_states)
        return hidden_states + self.dropout(self._feed_forward(normed, inputs))

    def _feed_forward(self, normed: Tensor, inputs: LayerInputs) -> Tensor:
        if not self.has_experts:
            return self.mlp(normed)
        return self.mlp(normed, inputs.places, inputs.behaviors, inputs.first_place)


class GamerPreTrainedModel(PreTrainedModel):
    """What GAMER's models share: loading, initial weights and what they support."""

    config_class = GamerConfig
    config: GamerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GamerDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    # Flash attention ignores mask functions without a word, and context parallelism drops them.
    _supports_flash_attn = False
    _supports_context_parallel = False
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GamerDecoderLayer, "attentions": SelfAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ScaledLinear):
            init.normal_(module.weight, mean=0.0, std=module.in_features**-0.5)
        if isinstance(module, PositionExperts):
            init.normal_(module.gate_up_proj, mean=0.0, std=self.config.initializer_range)
            init.normal_(module.down_proj, mean=0.0, std=self.config.initializer_range)


class GamerModel(GamerPreTrainedModel):
    """GAMER's decoder without the output head.

    Args:
        config: A configuration with a vocabulary.

    Raises:
        ValueError: If the configuration has no vocabulary.
    """

    def __init__(self, config: GamerConfig) -> None:
        vocab_size = config.require_vocabulary()
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(GamerDecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3RotaryEmbedding(config)
        self.item_embedding = ItemEmbedding(config) if config.item_embedding_rows else None
        self.time_context = TimeContext(config) if config.time_context else None
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        session_ids: torch.LongTensor | None = None,
        layout: TokenLayout | None = None,
        event_times: torch.LongTensor | None = None,
        segment_ids: torch.LongTensor | None = None,
        padding_side: str | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Return hidden states.

        Args:
            input_ids: Token ids `[batch, tokens]`; with a filled cache only the new ones.
            attention_mask: 0 at padding, on either side, for cached and new tokens `[batch, cached + tokens]`.
            position_ids: Rotary positions, computed when left out `[batch, tokens]`.
            past_key_values: The cache, a `DynamicCache()` made without a configuration.
            session_ids: Each token's session, non-decreasing along a row and ignored at padding; needed by
                session-wise models and ignored by others `[batch, tokens]`.
            layout: What cached and new tokens are (`read_layout` of the whole sequence); computed without a cache.
            event_times: When each cached and new token happened, seconds; read with `time_context` only, which adds
                nothing without them `[batch, cached + tokens]`.
            segment_ids: Which user of the row each token is of, from 1, and 0 at padding, which comes last: several
                users may share a row and do not see each other `[batch, tokens]`.
            padding_side: `"right"` if rows are padded on the right only. Under `torch.compile`, where nothing can be
                looked at, this spares a mask.
            use_cache: Whether to return a cache.
            **kwargs: Passed by transformers; unused.

        Raises:
            ValueError: If sessions or, with a filled cache, the layout are needed and missing, or if the cache cannot
                grow.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        _check_room(self.config, past_key_values)
        if segment_ids is not None and self.time_context is not None:
            raise ValueError("With `time_context` each user needs a row of their own. Leave `segment_ids` out.")
        layout = self._checked_layout(input_ids, attention_mask, session_ids, segment_ids, layout, past_key_values)
        if position_ids is None:
            position_ids = layout.rotary_positions(self.config.tokens_per_item)[:, -input_ids.shape[1] :]
        hidden_states = self.embed(input_ids, layout, event_times)
        rotary = self.rotary_emb(hidden_states, position_ids)
        is_cached = past_key_values is not None
        inputs = self._layer_inputs(hidden_states, layout, rotary, padding_side, is_cached)
        for layer in self.layers:
            hidden_states = layer(hidden_states, inputs=inputs, past_key_values=past_key_values, use_cache=use_cache)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values if use_cache else None
        )

    def embed(self, input_ids: Tensor, layout: TokenLayout, event_times: Tensor | None = None) -> Tensor:
        """Return the first layer's input for the last tokens of a layout `[batch, tokens, width]`."""
        embedded = self.embed_tokens(input_ids)
        if self.item_embedding is not None:
            embedded = embedded + self.item_embedding(layout.last(input_ids.shape[1]).numbers)
        if self.time_context is None or event_times is None:
            return embedded
        return embedded + self.time_context(layout, event_times)[:, -input_ids.shape[1] :]

    def _checked_layout(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        session_ids: Tensor | None,
        segment_ids: Tensor | None,
        layout: TokenLayout | None,
        cache: Cache | None,
    ) -> TokenLayout:
        """Return the layout of cached and new tokens, which only the caller knows once there is something cached."""
        num_cached = 0 if cache is None else cache.get_seq_length()
        num_keys = num_cached + input_ids.shape[1]
        if layout is None and num_cached:
            if self.config.reads_behaviors:
                raise ValueError(
                    "With a filled cache the model cannot know the behaviors and sessions of cached tokens. Pass "
                    "`layout`, read_layout(config, all_input_ids, attention_mask, session_ids), as `generate` does."
                )
            cached = input_ids.new_zeros(input_ids.shape[0], num_cached)
            input_ids = torch.cat([cached, input_ids], dim=1)
        if layout is None:
            return read_layout(self.config, input_ids, attention_mask, session_ids, segment_ids)
        if layout.places.shape[1] != num_keys:
            raise ValueError(
                f"`layout` must cover the {num_cached} cached and {num_keys - num_cached} new tokens, got "
                f"{layout.places.shape[1]}."
            )
        return layout

    def _layer_inputs(
        self, hidden_states: Tensor, layout: TokenLayout, rotary: Rotary, padding_side: str | None, is_cached: bool
    ) -> LayerInputs:
        num_tokens = hidden_states.shape[1]
        new = layout.last(num_tokens)
        first_place, is_right_padded = _static_facts(layout, new, self.config.tokens_per_item, padding_side)
        cross_mask = has_key = selection = None
        if self.config.cross_level_layers:
            has_key = sees_lower_level(layout.levels, layout.sessions, layout.real, layout.segments)
            if self._selects_tokens(hidden_states, is_cached):
                selection = select(self._visible("cross_level", layout), layout, has_key, rotary)
            else:
                cross_mask = self._mask("cross_level", layout, has_key, hidden_states)
            has_key = has_key[:, -num_tokens:]
        return LayerInputs(
            rotary=rotary,
            self_mask=self._self_mask(layout, hidden_states, is_right_padded),
            cross_mask=cross_mask,
            has_key=has_key,
            places=new.places,
            behaviors=new.behaviors,
            first_place=first_place,
            selection=selection,
        )

    def _selects_tokens(self, hidden_states: Tensor, is_cached: bool) -> bool:
        """Whether cross-level attention leaves out tokens that it is not about; a cache needs the keys of all."""
        is_eager = self.config._attn_implementation == "sdpa" and not torch.compiler.is_compiling()
        return is_eager and hidden_states.device.type == "cpu" and not is_cached

    def _self_mask(self, layout: TokenLayout, hidden_states: Tensor, is_right_padded: bool) -> Any:
        """Return the mask, or `None` where no real token could see padding under SDPA's own causal mask."""
        is_whole = layout.places.shape[1] == hidden_states.shape[1]
        is_plain = self.config._attn_implementation == "sdpa" and not self.config.session_wise
        if is_plain and is_whole and is_right_padded and layout.segments is None:
            return None
        return self._mask("causal", layout, layout.real, hidden_states)

    def _mask(self, name: str, layout: TokenLayout, sees_any: Tensor, hidden_states: Tensor) -> Any:
        visible = self._visible(name, layout)
        implementation, dtype = self.config._attn_implementation, hidden_states.dtype
        return build_mask(visible, layout.real, sees_any, hidden_states.shape[1], implementation, dtype)

    def _visible(self, name: str, layout: TokenLayout) -> MaskFunction:
        name = f"session_{name}" if self.config.session_wise else name
        visible = MASKS[name](layout.items, layout.levels, layout.sessions)
        return visible if layout.segments is None else within_segments(visible, layout.segments)


def _check_room(config: GamerConfig, cache: Cache | None) -> None:
    """Refuse a cache of fixed length, or with too few slots for two attentions per layer."""
    if cache is None:
        return
    slots = config.num_hidden_layers + 1 + max(config.cross_level_layers or (-1,))
    if config.has_mixture:
        slots = 2 * config.num_hidden_layers + 1
    if cache.is_compileable or (cache.layer_class_to_replicate is None and len(cache.layers) < slots):
        raise ValueError(
            f"The model needs a cache that grows, with {slots} slots for its attentions, got a {type(cache).__name__} "
            f"that has {len(cache.layers)} layers. Pass `DynamicCache()`, made without a configuration."
        )


def _static_facts(
    layout: TokenLayout, new: TokenLayout, tokens_per_item: int, padding_side: str | None
) -> tuple[int | None, bool]:
    """Return the new tokens' `first_place` (see `LayerInputs`), and whether no padding precedes a real token.

    Routing by column and the kernel's own causal mask are decided on the host, once per forward pass. Under
    `torch.compile` nothing can be read back: there, sequences of whole items must start at a multiple of an item,
    which is asserted on the device, and padding is masked unless the caller says that it comes last.
    """
    columns = torch.arange(new.places.shape[1], device=new.places.device)
    starts = (new.places - columns) % tokens_per_item
    if torch.compiler.is_compiling():
        if new.places.shape[1] < tokens_per_item:
            return None, padding_side == "right"
        torch._assert_async(
            ((starts == 0) | ~new.real).all(), "Compiled models need rows padded by whole items, to multiples of one."
        )
        return 0, padding_side == "right"
    lowest = torch.where(new.real, starts, tokens_per_item).min()
    highest = torch.where(new.real, starts, -1).max()
    is_left_padded = (layout.real[:, 1:] & ~layout.real[:, :-1]).any()
    lowest, highest, is_left_padded = torch.stack([lowest, highest, is_left_padded]).tolist()
    return (lowest if lowest == highest else None), not is_left_padded


def _check_mixture_inputs(segment_ids: Tensor | None, logits_to_keep: int | Tensor, is_both: bool) -> None:
    """Refuse what a model with a mixture cannot do."""
    if segment_ids is not None:
        raise ValueError("With a mixture each user needs a row of their own. Leave `segment_ids` out.")
    if not isinstance(logits_to_keep, int):
        raise ValueError("With a mixture `logits_to_keep` must be a number of last tokens, got columns. Choose later.")
    if is_both:
        raise ValueError(
            "With a mixture the loss needs candidates per labelled item, logits need them per row. Leave "
            "`return_logits` out, or call again without `labels`."
        )


class GamerForCausalLM(GamerPreTrainedModel, GamerGenerationMixin):
    """GAMER with its output head: predicts the next token, and so, `num_levels` times, the next item.

    `generate` needs nothing but `input_ids` that end with the behavior asked for (and `session_ids` if the model is
    session-wise); its generation configuration is complete, so that no library default decides.

    Args:
        config: A configuration with a vocabulary.

    Raises:
        ValueError: If the configuration has no vocabulary.

    Example:
        >>> config = GamerConfig(
        ...     hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        ...     head_dim=8, codebook_sizes=[4, 4], behavior_levels=[0, 1],
        ... )
        >>> model = GamerForCausalLM(config).eval()
        >>> history_and_behavior = torch.tensor([[2, 4, 8, 3]])  # viewed the item (0, 0); buys what?
        >>> model.generate(history_and_behavior, num_beams=2).shape
        torch.Size([1, 6])
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: GamerConfig) -> None:
        vocab_size = config.require_vocabulary()
        super().__init__(config)
        self.vocab_size = vocab_size
        self.model = GamerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, vocab_size, bias=False)
        self.mixture = MixtureHead(config) if config.has_mixture else None
        self.post_init()
        self.generation_config = default_generation_config(config)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        session_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        layout: TokenLayout | None = None,
        event_times: torch.LongTensor | None = None,
        item_history: ItemHistory | None = None,
        trend_tokens: torch.LongTensor | None = None,
        trend_features: torch.Tensor | None = None,
        neighbor_tokens: torch.LongTensor | None = None,
        neighbor_features: torch.Tensor | None = None,
        segment_ids: torch.LongTensor | None = None,
        padding_side: str | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, or with labels the loss, for which logits are computed only where it is borne.

        With a mixture (`copy_head`, `trend_head`, `neighbor_head`) rows are padded by whole items. Candidates are given
        per query, in the order of rows and places: every item whose codes bear loss, or without labels the last item of
        each row, whose tokens' logits are then the logs of the mixture (those of earlier items stay the softmax's).

        Args:
            input_ids: Token ids `[batch, tokens]`; with a filled cache only the new ones.
            attention_mask: 0 at padding, on either side, for cached and new tokens `[batch, cached + tokens]`.
            position_ids: Rotary positions, computed when left out `[batch, tokens]`.
            past_key_values: The cache, a `DynamicCache()` made without a configuration.
            session_ids: Each token's session, see `GamerModel.forward` `[batch, tokens]`.
            labels: Token ids to predict, at the column of the token itself, -100 where there is no loss. Codes bear
                loss; behavior tokens only with the configuration's `behavior_loss_weight` `[batch, tokens]`.
            layout: What cached and new tokens are, see `GamerModel.forward`.
            event_times: When each cached and new token happened, seconds; the query's time at the behavior asked for
                `[batch, cached + tokens]`.
            item_history: The items of cached and new tokens (`read_item_history` of the whole sequence); computed
                without a cache.
            trend_tokens: Codes of the items that all users met lately, 0 for none `[queries, candidates, levels]`.
            trend_features: Their counts `[queries, candidates, features]`.
            neighbor_tokens: Codes of the neighbors of the user's items, 0 for none `[queries, candidates, levels]`.
            neighbor_features: What is known of them `[queries, candidates, features]`.
            segment_ids: Which user of the row each token is of, see `GamerModel.forward` `[batch, tokens]`.
            padding_side: `"right"` if rows are padded on the right only, see `GamerModel.forward`.
            use_cache: Whether to return a cache; by default only without labels.
            logits_to_keep: Only the last so many tokens' logits, 0 for all, or the columns to keep. Labels, if given,
                are those of the tokens kept.
            return_logits: Whether to return logits; by default only without labels.
            temperature: Divides the logits in the loss; the logits returned are untouched.
            **kwargs: `num_items_in_batch`, the number of labels the loss is averaged over; output switches.
        """
        if use_cache is None and labels is not None:
            use_cache = False
        if self.mixture is not None:
            _check_mixture_inputs(segment_ids, logits_to_keep, labels is not None and bool(return_logits))
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            session_ids=session_ids,
            layout=layout,
            event_times=event_times,
            segment_ids=segment_ids,
            padding_side=padding_side,
            use_cache=use_cache,
            **kwargs,
        )
        candidates = as_candidates(trend_tokens, trend_features), as_candidates(neighbor_tokens, neighbor_features)
        if self.mixture is not None:
            item_history = item_history or self._read_items(input_ids, session_ids, event_times, past_key_values)
        if item_history is not None and labels is not None:
            loss = self._mixture_loss(
                outputs.last_hidden_state, labels, item_history, candidates, temperature, **kwargs
            )
            return CausalLMOutputWithPast(loss=loss, hidden_states=outputs.hidden_states, attentions=outputs.attentions)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden_states = outputs.last_hidden_state[:, kept]
        token_loss: Tensor | None = None
        logits: Tensor | None = None
        if labels is not None:
            num_labels = kwargs.get("num_items_in_batch")
            token_loss = next_token_loss(
                self.config, hidden_states, labels, self.lm_head, self.loss_function, temperature, num_labels
            )
        if return_logits or (return_logits is None and labels is None):
            logits = self.lm_head(hidden_states)
            if self.config.softmax == "level":
                logits = self._forbid_other_levels(logits, token_places(self.config, input_ids[:, kept]))
            if item_history is not None:
                logits = self._mixed(logits, outputs.last_hidden_state, item_history, candidates, past_key_values)
        return CausalLMOutputWithPast(
            loss=token_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _read_items(
        self, input_ids: Tensor, session_ids: Tensor | None, event_times: Tensor | None, cache: Cache | None
    ) -> ItemHistory:
        if cache is not None and cache.get_seq_length() > input_ids.shape[1]:
            raise ValueError(
                "With a filled cache the model cannot know the items of cached tokens. Pass `item_history`, "
                "read_item_history(config, all_input_ids, session_ids, event_times), as `generate` does."
            )
        return read_item_history(self.config, input_ids, session_ids, event_times)

    def _mixed(
        self,
        logits: Tensor,
        hidden_states: Tensor,
        history: ItemHistory,
        candidates: tuple[Candidates | None, Candidates | None],
        cache: Cache | None,
    ) -> Tensor:
        """Replace the last item's logits, as far as they are among the last ones given, by the logs of the mixture."""
        assert self.mixture is not None
        written = int(torch.ne(history.tokens[:, -1], PAD).sum(dim=1).amax())
        if written == 0:  # nothing but padding comes last, and nothing is asked
            return logits
        states = self._last_states(hidden_states, written, cache)[:, : self.config.num_levels]
        after_codes = written - states.shape[1]  # 1 if the item is complete and a behavior follows
        of_softmax = self.lm_head(states)
        if self.config.softmax == "level":
            of_softmax = self._forbid_other_levels(
                of_softmax, token_places(self.config, history.tokens[:, -1, : states.shape[1]])
            )
        mixed = self.mixture(of_softmax, states, history, self.model.embed_tokens.weight, *candidates)
        kept = min(logits.shape[1] - after_codes, mixed.shape[1])
        end = logits.shape[1] - after_codes
        return torch.cat([logits[:, : end - kept], mixed[:, mixed.shape[1] - kept :], logits[:, end:]], dim=1)

    def _last_states(self, hidden_states: Tensor, written: int, cache: Cache | None) -> Tensor:
        """Return the hidden states of the last item's tokens `[batch, written, width]`, which the cache keeps."""
        new = hidden_states[:, -written:]
        if cache is None:
            return new
        kept, _ = cache.update(new[:, None], new[:, None], 2 * self.config.num_hidden_layers)
        return kept[:, 0, -written:]

    def _mixture_loss(
        self,
        hidden_states: Tensor,
        labels: Tensor,
        history: ItemHistory,
        candidates: tuple[Candidates | None, Candidates | None],
        temperature: float,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the mean negative log-likelihood of the labelled codes under the mixture."""
        assert self.mixture is not None
        per_item = self.config.tokens_per_item
        labels = torch.nn.functional.pad(labels, (hidden_states.shape[1] - labels.shape[1], 0), value=IGNORED_LABEL)
        codes = labels.unflatten(1, (-1, per_item))[..., 1:]
        rows, places = (codes[..., 0] != IGNORED_LABEL).nonzero(as_tuple=True)
        states = hidden_states.unflatten(1, (-1, per_item))[rows, places, : self.config.num_levels]
        logits = self.lm_head(states)
        if self.config.softmax == "level":
            logits = self._forbid_other_levels(logits, token_places(self.config, history.tokens[rows, places, :-1]))
        codes = codes[rows, places]
        of_softmax = (logits / temperature).float().log_softmax(dim=2).gather(2, codes[..., None])[..., 0]
        queries = ItemQueries(rows, places)
        components = self.mixture.components(states, history, queries, self.model.embed_tokens.weight, *candidates)
        likelihoods = log_likelihoods(components, codes, of_softmax)
        if self.config.softmax_loss_weight:
            likelihoods = likelihoods + self.config.softmax_loss_weight * of_softmax
        if self.config.query_weighted_loss:
            likelihoods = likelihoods * query_weights(history, queries)[:, None]
        loss = -likelihoods.sum()
        return loss / (codes.numel() if num_items_in_batch is None else num_items_in_batch)

    def _forbid_other_levels(self, logits: Tensor, places: Tensor) -> Tensor:
        """Keep the logits of the tokens that may follow: codes of the next level, or behaviors after the last."""
        vocabulary = torch.arange(logits.shape[-1], device=logits.device)
        next_places = (places[..., None] + 1) % self.config.tokens_per_item
        may_follow = (token_places(self.config, vocabulary) == next_places) & (vocabulary >= FIRST_BEHAVIOR)
        return logits.masked_fill(~may_follow, float("-inf"))
