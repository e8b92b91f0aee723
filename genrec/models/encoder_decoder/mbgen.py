"""MBGen: T5 whose decoder has experts by place, and whose feed-forward reads behaviors.

Liu et al., *Multi-Behavior Generative Recommendation* (CIKM 2024), as the baseline of GAMER (Wang et al., section 4)
has it: which expert a token goes to follows from its place in the item, so nothing is learned about routing and there
is no balancing loss. Attention and layers are those of transformers' T5.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Block, T5DenseActDense, T5LayerNorm, T5Stack

from .base import InitialisedAsT5, ItemCodeT5
from .configuration import MBGenConfig
from .token_places import item_behaviors, token_places


class Expert(T5DenseActDense):
    """T5's feed-forward, of a wider input.

    Args:
        config: The shape.
        extra_width: What is appended to a hidden state.
    """

    def __init__(self, config: MBGenConfig, extra_width: int) -> None:
        super().__init__(config)
        self.wi = nn.Linear(config.d_model + extra_width, config.d_ff, bias=False)


class RoutedFeedForward(nn.Module):
    """A feed-forward with one expert per place, or one for all, that may read the item's behavior too.

    Args:
        config: The shape.
        num_experts: One, or as many as there are places.
        reads_behaviors: Whether a behavior embedding is appended to the normalised hidden state; zeros for tokens that
            are no codes.
    """

    def __init__(self, config: MBGenConfig, num_experts: int, reads_behaviors: bool) -> None:
        super().__init__()
        self.layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)
        width = config.behavior_embedding_dim if reads_behaviors else 0
        rows = config.num_behaviors + 1
        self.behavior_embeddings = nn.Embedding(rows, width, padding_idx=0) if reads_behaviors else None
        self.experts = nn.ModuleList(Expert(config, width) for _ in range(num_experts))

    def forward(self, hidden_states: Tensor, places: Tensor, behaviors: Tensor) -> Tensor:
        """Return new hidden states.

        Args:
            hidden_states: `[batch, tokens, width]`.
            places: Each token's place `[batch, tokens]`.
            behaviors: The behavior of each code's item, 0 for other tokens `[batch, tokens]`.
        """
        states = self.layer_norm(hidden_states)
        if self.behavior_embeddings is not None:
            states = torch.cat([states, self.behavior_embeddings(behaviors)], dim=-1)
        return hidden_states + self.dropout(self._routed(states, places))

    def _routed(self, states: Tensor, places: Tensor) -> Tensor:
        """Send each token to the expert of its place."""
        if len(self.experts) == 1:
            return self.experts[0](states)
        flat, of_token = states.flatten(0, 1), places.flatten()
        rows = [(of_token == place).nonzero()[:, 0] for place in range(len(self.experts))]
        parts = [expert(flat[chosen]) for expert, chosen in zip(self.experts, rows, strict=True)]
        back = torch.cat(rows).argsort()
        return torch.cat(parts)[back].unflatten(0, places.shape)


class MBGenBlock(T5Block):
    """T5's layer with a feed-forward that may be routed.

    Args:
        config: The shape of the encoder or the decoder.
        layer_idx: The layer's number.
    """

    def __init__(self, config: MBGenConfig, layer_idx: int) -> None:
        super().__init__(config, has_relative_attention_bias=layer_idx == 0, layer_idx=layer_idx)
        has_experts = config.is_decoder and layer_idx in (config.expert_layers or ())
        reads_behaviors = layer_idx in (config.behavior_injection_layers or ())
        self.is_routed = has_experts or reads_behaviors
        if self.is_routed:
            self.layer[-1] = RoutedFeedForward(config, config.num_places if has_experts else 1, reads_behaviors)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        encoder_decoder_position_bias: Tensor | None = None,
        past_key_values: Any = None,
        places: Tensor | None = None,
        behaviors: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return hidden states and the position biases of both attentions, which later layers share.

        Args:
            hidden_states: `[batch, tokens, width]`.
            attention_mask: Of self-attention.
            position_bias: Of self-attention, from the first layer.
            encoder_hidden_states: What the decoder reads `[batch, history tokens, width]`.
            encoder_attention_mask: Of cross-attention.
            encoder_decoder_position_bias: Of cross-attention, from the first layer.
            past_key_values: The decoder's cache.
            places: Each token's place `[batch, tokens]`.
            behaviors: The behavior of each code's item `[batch, tokens]`.
            **kwargs: Passed to the attentions.
        """
        hidden_states, self_bias, _ = self.layer[0](
            hidden_states,
            attention_mask=attention_mask,
            position_bias=position_bias,
            past_key_values=past_key_values,
            **kwargs,
        )
        cross_bias = None
        if self.is_decoder and encoder_hidden_states is not None:
            hidden_states, cross_bias, _ = self.layer[1](
                hidden_states,
                key_value_states=encoder_hidden_states,
                attention_mask=encoder_attention_mask,
                position_bias=encoder_decoder_position_bias,
                past_key_values=past_key_values,
                **kwargs,
            )
        routing = (places, behaviors) if self.is_routed else ()
        return self.layer[-1](hidden_states, *routing), self_bias, cross_bias


class MBGenStack(InitialisedAsT5, T5Stack):
    """T5's encoder or decoder, which reads off its tokens what each is.

    Args:
        config: The shape of the encoder or the decoder.
    """

    config: MBGenConfig

    def __init__(self, config: MBGenConfig) -> None:
        super().__init__(config)
        self.block = nn.ModuleList(MBGenBlock(config, layer) for layer in range(config.num_layers))
        self.post_init()

    def forward(self, input_ids: Tensor, decoder_behaviors: Tensor | None = None, **kwargs: Any) -> Any:
        """Return what T5's stack does.

        Args:
            input_ids: Token ids `[batch, tokens]`; with a filled cache only the new ones.
            decoder_behaviors: For the decoder, where `input_ids` lack the behavior token: `item_behaviors` of them
                `[batch, tokens]`. The encoder, which gets the same arguments, does not read it.
            **kwargs: T5's own.
        """
        behaviors = decoder_behaviors if self.is_decoder else None
        if behaviors is None:
            behaviors = item_behaviors(self.config, input_ids)
        places = token_places(self.config, input_ids)
        return super().forward(input_ids=input_ids, places=places, behaviors=behaviors, **kwargs)


class MBGenForConditionalGeneration(ItemCodeT5):
    """MBGen: reads items with their behaviors and writes the next item after the behavior asked for.

    Args:
        config: A configuration with its vocabulary filled in. With `expert_layers=[]` and
            `behavior_injection_layers=[]` the model is TIGER-MB.

    Raises:
        ValueError: If the configuration has no vocabulary.

    Example:
        >>> shape = dict(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
        >>> config = MBGenConfig(codebook_sizes=[4, 4], behavior_levels=[0, 1], **shape)
        >>> history, item = torch.tensor([[2, 4, 8, 3, 5, 9, 1]]), torch.tensor([[3, 6, 10, 1]])
        >>> MBGenForConditionalGeneration(config)(input_ids=history, labels=item).logits.shape
        torch.Size([1, 4, 12])
    """

    config_class = MBGenConfig
    config: MBGenConfig

    def __init__(self, config: MBGenConfig) -> None:
        super().__init__(config)
        self.encoder = MBGenStack(self.encoder.config)  # type: ignore[arg-type]
        self.decoder = MBGenStack(self.decoder.config)  # type: ignore[arg-type]
        self.post_init()

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the model's inputs for one step; codes' behaviors are read off all that was written."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, **kwargs)  # type: ignore[misc, arg-type]
        num_new = inputs["decoder_input_ids"].shape[1]
        inputs["decoder_behaviors"] = item_behaviors(self.config, input_ids)[:, -num_new:]
        return inputs
