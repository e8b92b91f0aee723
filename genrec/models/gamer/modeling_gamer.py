"""GAMER: generative recommendation over several behaviors, on transformers' Qwen3 parts.

Wang et al., *Generative Sequential Recommendation via Hierarchical Behavior Modeling*, arXiv 2511.03155. A user's
history is written as items `[behavior, c1, ..., cL]`, and the next item's codes are predicted. Each layer has causal
self-attention, in some layers cross-level behavior attention, and a feed-forward network per place in an item.

Where we differ from the released code: a token without a visible key in cross-level attention gets zero instead of an
average over the whole row; the target behavior token carries its own behavior at inference; there is no expert for
padding; the norm before the feed-forward is `post_attention_layernorm`, so that with all extras off the weights are
those of `Qwen3ForCausalLM`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .backbone import GamerModel, GamerPreTrainedModel
from .configuration_gamer import FIRST_BEHAVIOR, PAD, GamerConfig
from .generating import GamerGenerationMixin
from .generation_defaults import default_generation_config
from .item_history import ItemHistory, ItemQueries, loss_weights, read_item_history
from .loss import IGNORED_LABEL, next_token_loss
from .mixture import MixtureHead
from .pointers import Candidates, as_candidates
from .prefix_mixture import log_likelihoods
from .token_layout import TokenLayout, token_places


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
        if self.config.loss_unit != "item":
            likelihoods = likelihoods * loss_weights(history, queries, self.config.loss_unit)[:, None]
        loss = -likelihoods.sum()
        return loss / (codes.numel() if num_items_in_batch is None else num_items_in_batch)

    def _forbid_other_levels(self, logits: Tensor, places: Tensor) -> Tensor:
        """Keep the logits of the tokens that may follow: codes of the next level, or behaviors after the last."""
        vocabulary = torch.arange(logits.shape[-1], device=logits.device)
        next_places = (places[..., None] + 1) % self.config.tokens_per_item
        may_follow = (token_places(self.config, vocabulary) == next_places) & (vocabulary >= FIRST_BEHAVIOR)
        return logits.masked_fill(~may_follow, float("-inf"))
