"""Constrained decoding as most generative recommenders do it: nested dictionaries behind `prefix_allowed_tokens_fn`.

The trie of GENRE (De Cao et al., arXiv 2010.00904), which LC-Rec (arXiv 2311.09049) and GAMER's released decoder use
for item codes. `generate` asks the function once per beam and step, and repeats each prompt for every beam.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

DictTrie = dict[int, Any]


def build_dict_trie(item_tokens: Tensor) -> DictTrie:
    """Return token -> subtree, over the items' tokens `[items, levels]`.

    Example:
        >>> import torch
        >>> build_dict_trie(torch.tensor([[3, 5], [3, 6], [4, 6]]))
        {3: {5: {}, 6: {}}, 4: {6: {}}}
    """
    root: DictTrie = {}
    for tokens in item_tokens.tolist():
        node = root
        for token in tokens:
            node = node.setdefault(token, {})
    return root


def allowed_tokens(root: DictTrie, prefix: list[int]) -> list[int]:
    """Return what may follow a prefix; nothing follows one that begins no item.

    Example:
        >>> import torch
        >>> allowed_tokens(build_dict_trie(torch.tensor([[3, 5], [3, 6], [4, 6]])), [3])
        [5, 6]
    """
    node = root
    for token in prefix:
        if token not in node:
            return []
        node = node[token]
    return list(node)


def prefix_allowed_tokens_fn(root: DictTrie, prompt_length: int) -> Callable[[int, Tensor], list[int]]:
    """Return the function that `generate` calls with each beam's tokens so far.

    Args:
        root: The trie.
        prompt_length: Tokens of the padded prompts; codes begin after them.
    """

    def allowed(batch_id: int, tokens: Tensor) -> list[int]:
        return allowed_tokens(root, tokens[prompt_length:].tolist())

    return allowed


def generate_with_dict_trie(
    model: Any, prompts: dict[str, Tensor], root: DictTrie, num_beams: int, num_results: int
) -> Any:
    """Return `generate`'s output: `sequences` and `sequences_scores`, best first.

    Args:
        model: Any model with transformers' `generate`.
        prompts: What the model is given; `input_ids` `[batch, tokens]` among them.
        root: The trie.
        num_beams: Beams per prompt.
        num_results: Items per prompt.
    """
    return model.generate(
        **prompts,
        prefix_allowed_tokens_fn=prefix_allowed_tokens_fn(root, prompts["input_ids"].shape[1]),
        num_beams=num_beams,
        num_return_sequences=num_results,
        return_dict_in_generate=True,
        output_scores=True,
    )
