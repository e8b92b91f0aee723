"""Beam search inside the catalog, with each user's prompt computed once.

Finds what `model.generate(num_beams=..., logits_processor=[TrieConstrainedLogitsProcessor(trie)])` finds: the score of
an item is the sum of its codes' log-probabilities, taken over the whole softmax, masked and never renormalised.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput

from genrec.generation.shared_prompt import SharedPromptDecoder
from genrec.generation.trie import DEAD_END, ROOT, ItemTrie, is_alive
from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR, PAD
from genrec.models.gamer.modeling_gamer import GamerForCausalLM

DEFAULT_BEAMS = 20


class Beams(NamedTuple):
    """The beams of each user, in the order of their nodes.

    Args:
        nodes: Where each beam stands in the trie `[batch, beams]`.
        scores: Sums of log-probabilities; `-inf` where there is no beam `[batch, beams]`, float32.
        tokens: The codes so far `[batch, beams, codes]`.
        parents: Which beam of the level above each one continues `[batch, beams]`.
    """

    nodes: Tensor
    scores: Tensor
    tokens: Tensor
    parents: Tensor


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
        allowed_items: Which items may come out, bool `[items]`, or `[batch, items]` with a row per prompt.
        **model_kwargs: `attention_mask` (computed from padding if missing) and, for session-wise models,
            `session_ids`; called directly also `num_beams` (20) and `num_return_sequences` (1).

    Returns:
        `sequences` `[batch * num_return_sequences, tokens + levels]` and `sequences_scores`, best first; ties by the
        order of the codes. Where fewer items qualify, the codes are padding and the score is `-inf`. `generate` gets
        the sequences alone unless `return_dict_in_generate` is set.

    Raises:
        ValueError: If the trie is not of the model's vocabulary, a prompt is no such row, the numbers of beams and
            results disagree, or logits processors are given.

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
    input_ids = input_ids[::repeats]
    attention_mask, session_ids = (
        None if (part := model_kwargs.get(name)) is None else part[::repeats]
        for name in ("attention_mask", "session_ids")
    )
    if attention_mask is None:
        attention_mask = torch.ne(input_ids, PAD)
    if logits_processor:
        raise ValueError(
            f"`constrained_beam_search` masks by its trie and would ignore the logits processors {logits_processor}. "
            "Leave them out, and their settings out of the generation configuration."
        )
    check_trie(model.config, trie)
    _check_prompts(model, input_ids, attention_mask)
    trie = trie.to(input_ids.device)
    alive = None if allowed_items is None else _alive(trie, allowed_items, len(input_ids))
    beams = search(model, input_ids, attention_mask, session_ids, trie, alive, num_beams)
    sequences, scores = _best(beams, num_results, input_ids)
    if generation_config is not None and not generation_config.return_dict_in_generate:
        return sequences
    return GenerateBeamDecoderOnlyOutput(sequences=sequences, sequences_scores=scores)  # type: ignore[arg-type]


def search(
    model: GamerForCausalLM,
    input_ids: Tensor,
    attention_mask: Tensor,
    session_ids: Tensor | None,
    trie: ItemTrie,
    alive: Tensor | None,
    num_beams: int,
) -> Beams:
    """Return the last level's beams; no value is read back to the host on the way.

    Args:
        model: The model.
        input_ids: Checked prompts, `[batch, tokens]`.
        attention_mask: 0 at padding, `[batch, tokens]`.
        session_ids: `[batch, tokens]` or None.
        trie: The catalog's codes, on the prompts' device.
        alive: From `ItemTrie.alive_nodes`, or None.
        num_beams: Beams to keep at each level; fewer are kept where the trie has fewer nodes.
    """
    decoder = SharedPromptDecoder(model, input_ids, attention_mask, session_ids, num_beams)
    tokens = input_ids[:, -1:]
    nodes = torch.full_like(tokens, ROOT)
    beams = Beams(nodes, torch.zeros_like(nodes, dtype=torch.float32), tokens[..., None][..., :0], nodes)
    for level in range(trie.num_levels):
        log_probabilities = decoder.step(tokens, beams.parents, level)
        offset = model.config.level_offsets[level]
        beams = extend(beams, log_probabilities, trie, alive, level, offset, num_beams)
        tokens = beams.tokens[..., -1]
    return beams


def extend(
    beams: Beams, log_probabilities: Tensor, trie: ItemTrie, alive: Tensor | None, level: int, offset: int, width: int
) -> Beams:
    """Return the `width` best continuations of each user's beams.

    Beams stand in the order of their nodes and children in the order of their codes, so candidates stand in the order
    of their nodes too, and ties go to the lower node.

    Args:
        beams: The beams so far.
        log_probabilities: Of this level's codes, `[batch, beams, codebook size]`.
        trie: The catalog's codes.
        alive: Nodes that lead to an allowed item, or None.
        level: The level to choose codes of.
        offset: The level's first token id.
        width: How many to keep at most.
    """
    children, tokens = trie.children(beams.nodes, level)
    is_open = children != DEAD_END if alive is None else is_alive(alive, children.flatten(1)).view_as(children)
    codes = (tokens - offset).clamp(0, log_probabilities.shape[-1] - 1)
    scores = log_probabilities.gather(2, codes) + beams.scores[..., None]
    scores = scores.masked_fill(~is_open, -torch.inf).flatten(1)
    chosen = top_in_order(scores, min(width, scores.shape[1]))
    parents = chosen // children.shape[2]
    scores = scores.gather(1, chosen)
    nodes = children.flatten(1).gather(1, chosen).masked_fill(scores == -torch.inf, DEAD_END)
    older = beams.tokens.gather(1, parents[..., None].expand(-1, -1, level))
    return Beams(nodes, scores, torch.cat([older, tokens.flatten(1).gather(1, chosen)[..., None]], dim=2), parents)


def top_in_order(scores: Tensor, count: int) -> Tensor:
    """Return where the `count` highest scores of each row are, in column order; of equal ones, the leftmost.

    A score and its column make one integer that sorts like the pair, so that no two candidates tie and every device
    chooses alike.

    Args:
        scores: `[rows, columns]` float32.
        count: How many to choose.

    Example:
        >>> top_in_order(torch.tensor([[0.5, 2.0, 2.0, 2.0, 1.0]]), count=2).tolist()
        [[1, 2]]
    """
    return _sortable(scores).topk(count, dim=1).indices.sort(dim=1).values


def _sortable(scores: Tensor) -> Tensor:
    """Return int64 numbers that sort like `(score, -column)`."""
    bits = (scores + 0.0).contiguous().view(torch.int32)  # adding 0 turns -0.0, which equals 0.0, into it
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats have falling bit patterns
    columns = torch.arange(scores.shape[1], device=scores.device)
    return (ascending.long() << 32) + (scores.shape[1] - 1 - columns)


def _best(beams: Beams, num_results: int, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return sequences and scores of the best beams, best first, filled up with padding that scores `-inf`."""
    kept = min(num_results, beams.scores.shape[1])
    order = _sortable(beams.scores).topk(kept, dim=1).indices
    scores = beams.scores.gather(1, order)
    tokens = beams.tokens.gather(1, order[..., None].expand(-1, -1, beams.tokens.shape[2]))
    tokens = tokens.masked_fill(scores[..., None] == -torch.inf, PAD)
    missing = num_results - kept
    scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    tokens = torch.nn.functional.pad(tokens, (0, 0, 0, missing), value=PAD)
    prompts = input_ids[:, None].expand(-1, num_results, -1)
    return torch.cat([prompts, tokens], dim=2).flatten(0, 1), scores.flatten()


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


def _check_prompts(model: GamerForCausalLM, input_ids: Tensor, attention_mask: Tensor) -> None:
    if model.training:
        raise ValueError("`constrained_beam_search` needs a model without dropout. Call `model.eval()` first.")
    config = model.config
    real = attention_mask.bool()
    columns = torch.arange(input_ids.shape[1] - 1, -1, -1, device=input_ids.device)  # how far from the last
    places = torch.bucketize(
        input_ids.contiguous(), torch.tensor(config.level_offsets, device=input_ids.device), right=True
    )
    is_item = places == -columns % config.tokens_per_item
    is_row = (is_item | ~real).all() & real[:, -1].all() & (real[:, 1:] >= real[:, :-1]).all()
    whole = (real.sum(dim=1) % config.tokens_per_item == 1).all() & ((input_ids >= FIRST_BEHAVIOR) | ~real).all()
    if not bool(is_row & whole):
        raise ValueError(
            "Each prompt must be padding on the left, whole items of one behavior token and "
            f"{config.num_levels} codes, and the token of the behavior asked for. Call the item tokenizer on "
            "histories, with a behavior, to get such rows."
        )


def _alive(trie: ItemTrie, allowed_items: Tensor, batch_size: int) -> Tensor:
    if allowed_items.ndim == 2 and len(allowed_items) != batch_size:
        raise ValueError(
            f"`allowed_items` has {len(allowed_items)} rows for {batch_size} prompts. Pass one row for each prompt, or "
            "one mask [items] for all."
        )
    return trie.alive_nodes(allowed_items)
