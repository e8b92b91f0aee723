"""What the fast search is asked: prompts, the behaviors to predict for each, and the rules both must obey."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from genrec.generation.trie import ItemTrie
from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR, PAD

CANDIDATES = ("trend_tokens", "trend_features", "neighbor_tokens", "neighbor_features")
CONTEXT = ("event_times", *CANDIDATES)


class Prompts(NamedTuple):
    """A batch of users' histories, and what is asked of each.

    Args:
        input_ids: Left-padded rows of whole items and a last behavior token, `[batch, tokens]`.
        attention_mask: 0 at padding, `[batch, tokens]`.
        session_ids: Each token's session, for session-wise models, `[batch, tokens]`.
        behaviors: Tokens of the behaviors asked for, which take the place of the last token, `[batch, targets]`.
        event_times: Each token's time in seconds, for models that read it, `[batch, tokens]`.
        trend_tokens: For models with `trend_head`, see `GamerForCausalLM.forward`, a row per request
            `[batch * targets, candidates, levels]`.
        trend_features: `[batch * targets, candidates, features]`.
        neighbor_tokens: For models with `neighbor_head` `[batch * targets, candidates, levels]`.
        neighbor_features: `[batch * targets, candidates, features]`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    session_ids: Tensor | None
    behaviors: Tensor
    event_times: Tensor | None = None
    trend_tokens: Tensor | None = None
    trend_features: Tensor | None = None
    neighbor_tokens: Tensor | None = None
    neighbor_features: Tensor | None = None

    @property
    def num_requests(self) -> int:
        """How many lists of items are asked for: one per user and behavior."""
        return self.behaviors.numel()

    def padded(self, num_users: int, num_tokens: int) -> "Prompts":
        """Return a larger batch: padding before each row, and the last user again and again after the others."""
        before, after = num_tokens - self.input_ids.shape[1], num_users - len(self.input_ids)
        return Prompts(
            _repeat_last(pad(self.input_ids, (before, 0), value=PAD), after),
            _repeat_last(pad(self.attention_mask, (before, 0)), after),
            None if self.session_ids is None else _repeat_last(pad(self.session_ids, (before, 0)), after),
            _repeat_last(self.behaviors, after),
            None if self.event_times is None else _repeat_last(pad(self.event_times, (before, 0)), after),
            *(
                None if part is None else _repeat_last(part, after * self.behaviors.shape[1])
                for part in (getattr(self, name) for name in CANDIDATES)
            ),
        )


def _repeat_last(rows: Tensor, times: int) -> Tensor:
    return torch.cat([rows, rows[-1:].expand(times, *rows.shape[1:])])


def read_prompts(
    input_ids: Tensor, attention_mask: Tensor | None, session_ids: Tensor | None, behaviors: Tensor | None
) -> Prompts:
    """Return prompts with what is missing filled in: the mask from padding, the behaviors from the last column.

    Raises:
        ValueError: If `behaviors` has another shape than `[targets]` or `[batch, targets]`.
    """
    if attention_mask is None:
        attention_mask = torch.ne(input_ids, PAD)
    if behaviors is None:
        return Prompts(input_ids, attention_mask, session_ids, input_ids[:, -1:])
    if behaviors.ndim == 1:
        behaviors = behaviors.expand(len(input_ids), -1)
    if behaviors.ndim != 2 or len(behaviors) != len(input_ids) or not behaviors.shape[1]:
        raise ValueError(
            f"`behaviors` must be [targets] or [batch, targets] for the {len(input_ids)} prompts, with at least one "
            f"target, got {list(behaviors.shape)}. Pass the tokens of the behaviors asked of each user."
        )
    return Prompts(input_ids, attention_mask, session_ids, behaviors.to(input_ids.device))


def check_prompts(model: Any, prompts: Prompts) -> None:
    """Refuse what the search would answer wrongly. This reads values back to the host.

    Raises:
        ValueError: If the model is in training mode, a prompt is not padding, whole items and a behavior, a behavior
            asked for is none, or a history is longer than the model's `max_history_items`.
    """
    if model.training:
        raise ValueError("The model is in training mode, where dropout would change scores. Call `model.eval()` first.")
    config, real = model.config, prompts.attention_mask.bool()
    is_behavior = (prompts.behaviors >= FIRST_BEHAVIOR) & (prompts.behaviors < config.level_offsets[0])
    longest = (real.sum(dim=1) // config.tokens_per_item).amax()
    facts = torch.stack([_are_whole_items(config, prompts.input_ids, real), is_behavior.all(), longest])
    is_row, asks_behavior, num_items = facts.tolist()
    if not is_row:
        raise ValueError(
            "Each prompt must be padding on the left, whole items of one behavior token and "
            f"{config.num_levels} codes, and the token of the behavior asked for. Call the item tokenizer on "
            "histories, with a behavior, to get such rows."
        )
    if not asks_behavior:
        raise ValueError(
            f"`behaviors` must be tokens from {FIRST_BEHAVIOR} to {config.level_offsets[0] - 1}, got "
            f"{prompts.behaviors.unique().tolist()}. Take them from the vocabulary: `behavior_token(index)`."
        )
    if num_items > config.max_history_items:
        raise ValueError(
            f"The longest history has {num_items} items but the model reads {config.max_history_items} "
            "(`max_history_items` of its configuration). Pass `max_history_items` to the item tokenizer, which keeps "
            "the last ones."
        )


def _are_whole_items(config: Any, input_ids: Tensor, real: Tensor) -> Tensor:
    """Return whether all rows are left padding, whole items, and one behavior token at the end, a bool tensor `[]`."""
    offsets = torch.tensor(config.level_offsets, device=input_ids.device)
    places = torch.bucketize(input_ids.contiguous(), offsets, right=True)
    columns = torch.arange(input_ids.shape[1] - 1, -1, -1, device=input_ids.device)  # how far from the last
    is_item = (places == -columns % config.tokens_per_item) & (input_ids >= FIRST_BEHAVIOR)
    is_left_padded = real[:, -1].all() & (real[:, 1:] >= real[:, :-1]).all()
    return (is_item | ~real).all() & is_left_padded & (real.sum(dim=1) % config.tokens_per_item == 1).all()


def check_trie(config: Any, trie: ItemTrie) -> None:
    """Refuse a trie whose codes are not those of the model.

    Raises:
        ValueError: If the vocabulary, the number of levels or a level's token ids differ.
    """
    if config.model_type != "gamer":
        raise ValueError(
            f"`constrained_beam_search` knows how GAMER keeps its prompt; the model is {config.model_type!r}. Use "
            "`generate` with `TrieConstrainedLogitsProcessor`, which works with every model."
        )
    ends = [start + size for start, size in zip(config.level_offsets, config.codebook_sizes, strict=True)]
    levels_fit = trie.num_levels == config.num_levels and all(
        start <= first and last <= end
        for start, end, (first, last) in zip(config.level_offsets, ends, trie.level_ranges, strict=False)
    )
    if trie.vocab_size != config.vocab_size or not levels_fit:
        raise ValueError(
            f"The trie has {trie.num_levels} levels of token ids {list(trie.level_ranges)} in a vocabulary of "
            f"{trie.vocab_size}, the model {config.num_levels} levels that begin at {config.level_offsets} in a "
            f"vocabulary of {config.vocab_size}. Use the trie of the item tokenizer that the model was trained with."
        )
