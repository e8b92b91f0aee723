"""Beam search inside the catalog, with each user's prompt computed once.

Finds what `model.generate(num_beams=..., logits_processor=[TrieConstrainedLogitsProcessor(trie)])` finds: the score of
an item is the sum of its codes' log-probabilities, taken over the whole softmax, masked and never renormalised.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput

from genrec.generation.prompts import CONTEXT, Prompts, check_prompts, check_trie, read_prompts
from genrec.generation.selection import Beams, best_items, extend, first_beams
from genrec.generation.shared_prompt import SharedPromptDecoder
from genrec.generation.trie import ItemTrie
from genrec.models.gamer.modeling_gamer import GamerForCausalLM

DEFAULT_BEAMS = 20
Search = Callable[[GamerForCausalLM, Prompts, ItemTrie, Tensor | None, int], Beams]


def search(model: GamerForCausalLM, prompts: Prompts, trie: ItemTrie, alive: Tensor | None, num_beams: int) -> Beams:
    """Return the last level's beams; no value is read back to the host and no shape depends on data.

    Args:
        model: The model.
        prompts: Checked prompts.
        trie: The catalog's codes, on the prompts' device.
        alive: From `ItemTrie.alive_nodes`: `[nodes]`, or with a row per user or per request; or None.
        num_beams: Beams to keep at each level; fewer are kept where the trie has fewer nodes.
    """
    decoder = SharedPromptDecoder(model, prompts, num_beams)
    tokens, beams = prompts.behaviors.reshape(-1, 1), first_beams(prompts.behaviors)
    for level in range(trie.num_levels):
        log_probabilities = decoder.step(tokens, beams.parents, level)
        offset = model.config.level_offsets[level]
        beams = extend(beams, log_probabilities, trie, alive, level, offset, num_beams)
        tokens = beams.tokens[..., -1]
    return beams


@torch.no_grad()
def constrained_beam_search(
    model: GamerForCausalLM,
    input_ids: Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: GenerationConfig | None = None,
    *,
    trie: ItemTrie,
    allowed_items: Tensor | None = None,
    behaviors: Tensor | None = None,
    searcher: Search = search,
    **model_kwargs: Any,
) -> GenerateBeamDecoderOnlyOutput | Tensor:
    """Return the best items for each prompt.

    Called directly, it takes one row per prompt. It can also be handed to transformers,
    `model.generate(**inputs, custom_generate=constrained_beam_search, trie=trie, num_beams=20)`, which repeats every
    row for each beam beforehand; the repetitions are dropped here.

    Args:
        model: A `GamerForCausalLM` in evaluation mode.
        input_ids: Left-padded prompts, whole items and then the behavior asked for, `[batch, tokens]`.
        logits_processor: Given by `generate`; must be empty, since the search masks scores itself.
        stopping_criteria: Given by `generate` and not needed: an item has a fixed length.
        generation_config: Given by `generate`; says how many beams and results.
        trie: The catalog's codes.
        allowed_items: Which items may come out, bool `[items]`, or with a row per prompt `[batch, items]` or per
            prompt and behavior asked for `[batch * targets, items]`.
        behaviors: Tokens of the behaviors to ask for instead of each prompt's last token, `[targets]` or
            `[batch, targets]`. The history is computed once for all of them.
        searcher: What carries the search out, once all is checked; a `BucketedSearch` does so compiled.
        **model_kwargs: `attention_mask` (computed from padding if missing) and, for session-wise models,
            `session_ids`; for models that read them `event_times` and the candidates of `GamerForCausalLM.forward`, a
            row per prompt and behavior asked for; called directly also `num_beams` (20) and `num_return_sequences` (1).

    Returns:
        `sequences` `[batch * targets * num_return_sequences, tokens + levels]` and `sequences_scores`, best first; ties
        by the order of the codes. Where fewer items qualify, because the catalog is smaller than the beam or a filter
        forbids the rest, the codes are padding and the score is `-inf`. `generate` gets the sequences alone unless
        `return_dict_in_generate` is set.

    Raises:
        ValueError: If the trie is not of the model's vocabulary, a prompt is no such row or longer than the model
            reads, the numbers of beams and results disagree, or logits processors are given.

    Example:
        >>> from genrec.models.gamer import GamerConfig, GamerForCausalLM
        >>> config = GamerConfig(
        ...     hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        ...     head_dim=8, codebook_sizes=[4, 4], behavior_levels=[0, 1],
        ... )
        >>> trie = ItemTrie(torch.tensor([[4, 8], [4, 9], [6, 8]]), config.vocab_size)
        >>> prompt = torch.tensor([[2, 4, 8, 3]])  # viewed the item (0, 0); buys what?
        >>> output = constrained_beam_search(
        ...     GamerForCausalLM(config).eval(), prompt, trie=trie, num_beams=5, num_return_sequences=3
        ... )
        >>> sorted(output.sequences[:, -2:].tolist())
        [[4, 8], [4, 9], [6, 8]]
    """
    num_beams, num_results, repeats = _sizes(generation_config, model_kwargs)
    if logits_processor:
        raise ValueError(
            f"`constrained_beam_search` masks by its trie and would ignore the logits processors {logits_processor}. "
            "Leave them out, and their settings out of the generation configuration."
        )
    check_trie(model.config, trie)
    attention_mask, session_ids = (
        None if (part := model_kwargs.get(name)) is None else part[::repeats]
        for name in ("attention_mask", "session_ids")
    )
    prompts = read_prompts(input_ids[::repeats], attention_mask, session_ids, behaviors)
    prompts = prompts._replace(
        **{name: model_kwargs[name][::repeats] for name in CONTEXT if model_kwargs.get(name) is not None}
    )
    check_prompts(model, prompts)
    trie = trie.to(input_ids.device)
    alive = None if allowed_items is None else _alive(trie, allowed_items, prompts)
    tokens, scores = best_items(searcher(model, prompts, trie, alive, num_beams), num_results)
    sequences = _sequences(prompts, tokens)
    if generation_config is not None and not generation_config.return_dict_in_generate:
        return sequences
    return GenerateBeamDecoderOnlyOutput(sequences=sequences, sequences_scores=scores.flatten())  # type: ignore[arg-type]


def _sequences(prompts: Prompts, tokens: Tensor) -> Tensor:
    """Return prompts, behaviors asked for and codes in a row, `[requests * results, tokens + levels]`."""
    num_targets, num_results = prompts.behaviors.shape[1], tokens.shape[1]
    histories = prompts.input_ids[:, :-1].repeat_interleave(num_targets, dim=0)
    asked = torch.cat([histories, prompts.behaviors.reshape(-1, 1)], dim=1)
    return torch.cat([asked[:, None].expand(-1, num_results, -1), tokens], dim=2).flatten(0, 1)


def _sizes(generation_config: GenerationConfig | None, model_kwargs: dict[str, Any]) -> tuple[int, int, int]:
    """Return the beams, the results, and how often `generate` has repeated each row."""
    if generation_config is None:
        num_beams = model_kwargs.get("num_beams", DEFAULT_BEAMS)
        num_results = model_kwargs.get("num_return_sequences", 1)
    else:
        num_beams = generation_config.num_beams or 1
        num_results = generation_config.num_return_sequences or 1
    if num_beams < 1 or not 1 <= num_results <= num_beams:
        raise ValueError(
            f"`num_return_sequences` must be from 1 to `num_beams`, got {num_results} for {num_beams} beams. Widen the "
            "search, or ask for fewer."
        )
    if generation_config is None:
        return num_beams, num_results, 1
    if generation_config.do_sample:
        raise ValueError("`constrained_beam_search` takes the best items and does not sample. Set `do_sample=False`.")
    return num_beams, num_results, num_beams


def _alive(trie: ItemTrie, allowed_items: Tensor, prompts: Prompts) -> Tensor:
    if allowed_items.ndim == 2 and len(allowed_items) not in (len(prompts.input_ids), prompts.num_requests):
        raise ValueError(
            f"`allowed_items` has {len(allowed_items)} rows for {len(prompts.input_ids)} prompts and "
            f"{prompts.num_requests} lists. Pass one row for each prompt, or one mask [items] for all."
        )
    return trie.alive_nodes(allowed_items)
