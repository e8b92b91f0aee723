"""A GAMER training step as the field writes it: dense additive masks, one boolean index per expert, all logits.

The equations are those of Wang et al. (arXiv 2511.03155), the structure that of the authors' released training code:
self-attention and cross-level attention each get an additive float mask `[batch, 1, tokens, tokens]`, built anew in
every step, with which scaled dot-product attention runs on repeated key-value heads; an expert gathers its tokens with
a boolean index and scatters its outputs back, one expert after the other, an idle one for padding included; a behavior
embedding is concatenated to the expert's input; logits are computed at all positions and upcast, and the loss masked.
In one thing it follows genrec instead: a token without a visible key in cross-level attention gets zero.

Weights are copied from a `GamerForCausalLM`, so that losses and gradients must agree with its.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, scaled_dot_product_attention, silu
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
    apply_rotary_pos_emb,
    repeat_kv,
)

from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.models.gamer.configuration_gamer import FIRST_BEHAVIOR

IGNORED_LABEL = -100
PADDING_EXPERT = 0


class DenseAttention(nn.Module):
    """Grouped-query attention with an additive mask; with behavior tables it is the cross-level one."""

    def __init__(self, config: GamerConfig, is_cross_level: bool) -> None:
        super().__init__()
        width, dim = config.hidden_size, config.head_dim
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
        self.groups, self.dim, self.attention_dropout = heads // kv_heads, dim, config.attention_dropout
        self.q_proj = nn.Linear(width, heads * dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * dim, bias=False)
        self.o_proj = nn.Linear(heads * dim, width, bias=False)
        self.q_norm = Qwen3RMSNorm(dim, eps=config.rms_norm_eps)
        self.k_norm = Qwen3RMSNorm(dim, eps=config.rms_norm_eps)
        self.is_cross_level = is_cross_level
        if is_cross_level:
            rows = config.num_behaviors + 1
            self.q_behavior_embedding = nn.Embedding(rows, heads * dim)
            self.k_behavior_embedding = nn.Embedding(rows, kv_heads * dim)
            self.v_behavior_embedding = nn.Embedding(rows, kv_heads * dim)
            self.gate_proj = nn.Linear(width, width, bias=False)

    def forward(self, hidden_states: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, behaviors: Tensor) -> Tensor:
        """Return the output `[batch, tokens, width]` under an additive mask `[batch, 1, tokens, tokens]`."""
        queries, keys, values = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        if self.is_cross_level:
            queries = queries + self.q_behavior_embedding(behaviors)
            keys = keys + self.k_behavior_embedding(behaviors)
            values = values + self.v_behavior_embedding(behaviors)
        queries = self.q_norm(queries.unflatten(-1, (-1, self.dim))).transpose(1, 2)
        keys = self.k_norm(keys.unflatten(-1, (-1, self.dim))).transpose(1, 2)
        values = values.unflatten(-1, (-1, self.dim)).transpose(1, 2)
        queries, keys = apply_rotary_pos_emb(queries, keys, *rotary)
        keys, values = repeat_kv(keys, self.groups), repeat_kv(values, self.groups)
        dropout = self.attention_dropout if self.training else 0.0
        output = scaled_dot_product_attention(
            queries.contiguous(), keys.contiguous(), values.contiguous(), attn_mask=mask, dropout_p=dropout
        )
        output = self.o_proj(output.transpose(1, 2).contiguous().flatten(2))
        if not self.is_cross_level:
            return output
        sees_something = (mask == 0).any(dim=-1).squeeze(1)
        return output * silu(self.gate_proj(hidden_states)) * sees_something[..., None]


class DenseExpert(nn.Module):
    """A SwiGLU network of one place."""

    def __init__(self, config: GamerConfig, input_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(input_width, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(input_width, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the network's output `[tokens, width]`."""
        return self.down_proj(self.dropout(silu(self.gate_proj(inputs)) * self.up_proj(inputs)))


class DenseExperts(nn.Module):
    """One expert per place and one for padding, each run on the tokens that a boolean index picks."""

    def __init__(self, config: GamerConfig, injects_behavior: bool) -> None:
        super().__init__()
        self.behavior_embedding = None
        width = config.hidden_size
        if injects_behavior:
            self.behavior_embedding = nn.Embedding(config.num_behaviors + 1, config.behavior_embedding_dim)
            width += config.behavior_embedding_dim
        self.experts = nn.ModuleList(DenseExpert(config, width) for _ in range(config.tokens_per_item + 1))

    def forward(self, hidden_states: Tensor, expert_ids: Tensor, behaviors: Tensor) -> Tensor:
        """Return each token's output from its expert `[batch, tokens, width]`."""
        inputs = hidden_states
        if self.behavior_embedding is not None:
            rows = torch.where(expert_ids == 1, 0, behaviors)
            inputs = torch.cat([hidden_states, self.behavior_embedding(rows)], dim=-1)
        output = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self.experts):
            chosen = expert_ids == number
            output[chosen] = expert(inputs[chosen]).to(output.dtype)
        return output


class DenseLayer(nn.Module):
    """Self-attention, perhaps cross-level attention, experts."""

    def __init__(self, config: GamerConfig, layer: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = DenseAttention(config, is_cross_level=False)
        self.input_layernorm = Qwen3RMSNorm(width, eps=eps)
        self.cross_attn = None
        if layer in (config.cross_level_layers or ()):
            self.cross_attn = DenseAttention(config, is_cross_level=True)
            self.cross_attention_layernorm = Qwen3RMSNorm(width, eps=eps)
        self.mlp = DenseExperts(config, layer in (config.behavior_injection_layers or ()))
        self.post_attention_layernorm = Qwen3RMSNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: Tensor,
        rotary: tuple[Tensor, Tensor],
        self_mask: Tensor,
        cross_mask: Tensor,
        expert_ids: Tensor,
        behaviors: Tensor,
    ) -> Tensor:
        """Return the layer's output `[batch, tokens, width]`."""
        output = self.self_attn(self.input_layernorm(hidden_states), rotary, self_mask, behaviors)
        hidden_states = hidden_states + self.dropout(output)
        if self.cross_attn is not None:
            normed = self.cross_attention_layernorm(hidden_states)
            hidden_states = hidden_states + self.dropout(self.cross_attn(normed, rotary, cross_mask, behaviors))
        output = self.mlp(self.post_attention_layernorm(hidden_states), expert_ids, behaviors)
        return hidden_states + self.dropout(output)


class DenseTrainingModel(nn.Module):
    """The baseline; `of` makes it from a `GamerForCausalLM`.

    Args:
        config: A causal configuration with position experts.
    """

    def __init__(self, config: GamerConfig) -> None:
        super().__init__()
        assert config.position_experts, "the baseline is GAMER's"
        assert not config.session_wise, "the baseline is causal"
        assert config.softmax == "full", "the baseline's softmax is over the whole vocabulary"
        self.config = config
        self.embed_tokens = nn.Embedding(config.require_vocabulary(), config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(DenseLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3RotaryEmbedding(config)

    @classmethod
    def of(cls, model: GamerForCausalLM) -> "DenseTrainingModel":
        """Return a baseline with copies of the model's weights, on its device and in its mode."""
        dense = cls(model.config).to(model.device)
        missing, unexpected = dense.load_state_dict(copied_experts(model.model.state_dict()), strict=False)
        assert not unexpected, unexpected
        assert all(f".experts.{PADDING_EXPERT}." in name for name in missing), missing
        return dense.train(model.training)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the loss on codes, the mean over labels."""
        logits = self.logits(input_ids, attention_mask).float() / temperature
        is_code = labels >= self.config.level_offsets[0]
        shifted = pad(torch.where(is_code, labels, IGNORED_LABEL), (0, 1), value=IGNORED_LABEL)[:, 1:]
        return cross_entropy(logits.flatten(0, 1), shifted.flatten(), ignore_index=IGNORED_LABEL)

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits of all positions `[batch, tokens, vocabulary]`."""
        num_tokens = input_ids.shape[1]
        real = attention_mask.bool()
        places = torch.arange(num_tokens, device=input_ids.device) % self.config.tokens_per_item
        expert_ids = torch.where(real, places + 1, PADDING_EXPERT)
        behavior_tokens = input_ids[:, torch.arange(num_tokens, device=input_ids.device) - places]
        behaviors = torch.where(real, behavior_tokens - FIRST_BEHAVIOR + 1, 0)
        hidden_states = self.embed_tokens(input_ids)
        self_mask, cross_mask = self._masks(real, behaviors, hidden_states.dtype)
        rotary = self.rotary_emb(hidden_states, (attention_mask.long().cumsum(-1) - 1).clamp(min=0))
        for layer in self.layers:
            hidden_states = layer(hidden_states, rotary, self_mask, cross_mask, expert_ids, behaviors)
        return nn.functional.linear(self.norm(hidden_states), self.embed_tokens.weight)

    def _masks(self, real: Tensor, behaviors: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the additive masks of both attentions `[batch, 1, tokens, tokens]`."""
        num_tokens = real.shape[1]
        causal = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=real.device).tril()
        visible = causal[None, None] & real[:, None, None, :]
        ladder = torch.tensor([-1, *self.config.behavior_levels], device=real.device)
        levels = ladder[behaviors]
        is_lower = (levels[:, None, :] < levels[:, :, None]) & (levels >= 0)[:, None, :]
        least = torch.finfo(dtype).min
        self_mask = torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, least)
        cross_mask = self_mask.masked_fill(~is_lower[:, None], least)
        return self_mask, cross_mask


def copied_experts(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a GAMER, or of its experts alone, with the stacked experts taken apart."""
    copied = {}
    for name, weight in weights.items():
        folder, _, last = name.rpartition(".")
        stem = f"{folder}." if folder else ""
        if last == "gate_up_proj":
            for place, (gate, up) in enumerate(expert.chunk(2) for expert in weight):
                copied[f"{stem}experts.{place + 1}.gate_proj.weight"] = gate
                copied[f"{stem}experts.{place + 1}.up_proj.weight"] = up
        elif last == "down_proj":
            copied |= {f"{stem}experts.{place + 1}.down_proj.weight": down for place, down in enumerate(weight)}
        else:
            copied[name] = weight
    return copied
