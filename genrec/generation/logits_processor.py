"""The trie as a transformers logits processor: `model.generate` can then write nothing but items of the catalog."""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from genrec.generation.trie import DEAD_END, ROOT, ItemTrie
from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR


class TrieConstrainedLogitsProcessor(LogitsProcessor):
    """Forbid every token that does not continue the code of some item.

    The place in the tree is read off `input_ids` at each step instead of being carried along, because beam search
    reorders beams without telling its processors. A behavior token opens an item; after it the codes lead down the
    tree. A prefix that begins no item, and a whole item, can be followed by nothing: every score is `-inf`.

    Beam search hands over log-probabilities of the full softmax, so masking them here leaves scores that are not
    renormalised over the allowed tokens, as in GAMER's released decoder. Pass `renormalize_logits=False` (the default).

    Args:
        trie: The catalog's codes.
        allowed_items: Which items may be generated, `[items]`, or `[batch, items]` with a row for each prompt, bool;
            None allows all.
        start_token: What opens an item instead of a behavior token, for models that write none.

    Raises:
        ValueError: If two levels of the trie share token ids, so that a token does not tell its level, or if
            `allowed_items` is not over the trie's items.

    Example:
        >>> trie = ItemTrie(torch.tensor([[3, 5], [3, 6], [4, 6]]), vocab_size=7)
        >>> processor = TrieConstrainedLogitsProcessor(trie)
        >>> processor(torch.tensor([[2, 4], [2, 3]]), torch.zeros(2, 7)).isfinite().nonzero().tolist()
        [[0, 6], [1, 5], [1, 6]]
    """

    def __init__(self, trie: ItemTrie, allowed_items: Tensor | None = None, *, start_token: int | None = None) -> None:
        starts = trie.level_offsets
        ends = [end for _, end in trie.level_ranges]
        if starts[0] <= FIRST_BEHAVIOR or any(end > start for end, start in zip(ends, starts[1:], strict=False)):
            raise ValueError(
                "Each level of the trie needs its own token ids, above the behavior tokens, in level order; got levels "
                f"that begin at {starts} and end before {ends}. Add the vocabulary's level offsets to the codes."
            )
        self.trie = trie
        self.start_token = start_token
        self.alive = None if allowed_items is None else trie.alive_nodes(allowed_items)
        self._level_starts = torch.tensor(starts)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores `[rows, vocab_size]` with `-inf` at every forbidden token.

        Args:
            input_ids: What each row holds so far, `[rows, tokens]`.
            scores: Logits or log-probabilities, `[rows, vocab_size]`.

        Raises:
            ValueError: If the model's vocabulary is not the trie's, or the rows do not match `allowed_items`.
        """
        if scores.shape[-1] != self.trie.vocab_size:
            raise ValueError(
                f"The model scores {scores.shape[-1]} tokens but the trie was made for a vocabulary of "
                f"{self.trie.vocab_size}. Use the trie of the item tokenizer that the model was trained with."
            )
        if self.alive is not None and self.alive.ndim == 2 and len(scores) % len(self.alive):
            raise ValueError(
                f"`allowed_items` has {len(self.alive)} rows, which does not divide the {len(scores)} beams. Pass one "
                "row for each prompt of the batch."
            )
        self._move_to(scores.device)
        mask = self.trie.allowed_mask(self._nodes(input_ids), self.alive)
        return scores.masked_fill(~mask, -torch.inf)

    def _move_to(self, device: torch.device) -> None:
        if self.trie.device != device:
            self.trie = self.trie.to(device)
            self.alive = None if self.alive is None else self.alive.to(device)
            self._level_starts = self._level_starts.to(device)

    def _nodes(self, input_ids: Tensor) -> Tensor:
        """Return the node at which each row stands, `[rows]`."""
        num_tokens = input_ids.shape[1]
        codes_so_far = torch.bucketize(input_ids[:, -1].contiguous(), self._level_starts, right=True)
        place = num_tokens - 1 - codes_so_far
        # A row shorter than this takes its first token as behavior and as code, which no token is, and so is dead.
        opens = input_ids.gather(1, place.clamp(min=0)[:, None])[:, 0]
        is_item = (opens >= FIRST_BEHAVIOR) & (opens < self._level_starts[0])
        if self.start_token is not None:
            is_item = opens == self.start_token
        nodes = torch.where(is_item, ROOT, DEAD_END)
        for depth in range(self.trie.num_levels):
            places = (place + 1 + depth).clamp(0, num_tokens - 1)
            deeper = self.trie.follow(nodes, input_ids.gather(1, places[:, None])[:, 0])
            nodes = torch.where(depth < codes_so_far, deeper, nodes)
        return nodes
