"""GAMER's decoder without its head: embeddings, layers, and what each layer is told about the tokens."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import CrossLevelAttention, Rotary, SelfAttention
from .behavior_masks import MASKS, MaskFunction, build_mask, sees_lower_level, within_segments
from .configuration_gamer import GamerConfig
from .cross_level_selection import CrossLevelSelection, select
from .experts import GamerMLP, PositionExperts
from .fused_ops import RMSNorm
from .item_embedding import ItemEmbedding
from .pointers import ScaledLinear
from .time_context import TimeContext
from .token_layout import TokenLayout, read_layout


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
