"""Tiny models, catalogs and prompts, and what a search over them must find: brute force over every item."""

import pytest
import torch
from torch import Tensor

from genrec.generation.logits_processor import TrieConstrainedLogitsProcessor
from genrec.generation.trie import ItemTrie
from genrec.models.gamer import GamerConfig, GamerForCausalLM

CODEBOOK_SIZES = [5, 4, 6]
BEHAVIOR_LEVELS = [0, 1, 1, 2]
TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "codebook_sizes": CODEBOOK_SIZES,
    "behavior_levels": BEHAVIOR_LEVELS,
    "behavior_embedding_dim": 4,
    "initializer_range": 0.4,  # far from uniform, so that a wrong step shows
}
PLAIN = {"cross_level_layers": [], "behavior_injection_layers": [], "position_experts": False}
VARIANTS = {
    "gamer": {},
    "gamer session-wise": {"session_wise": True},
    "plain": PLAIN,
    "plain session-wise": {**PLAIN, "session_wise": True},
    "every layer, one expert, softmax by level": {
        "cross_level_layers": [0, 1],
        "behavior_injection_layers": [0, 1],
        "position_experts": False,
        "softmax": "level",
    },
    "cross level first": {"cross_level_layers": [0], "behavior_injection_layers": [1], "tie_word_embeddings": False},
    "item embedding": {"item_embedding_rows": 7},
}


def tiny_model(seed: int = 0, **fields: object) -> GamerForCausalLM:
    torch.manual_seed(seed)
    return GamerForCausalLM(GamerConfig(**{**TINY, **fields})).eval()


def random_catalog(num_items: int, seed: int = 0) -> Tensor:
    """Return distinct item tokens `[items, levels]`, in no order."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.cartesian_prod(*(torch.arange(size) for size in CODEBOOK_SIZES))
    offsets = torch.tensor([6, 11, 15])
    return codes[torch.randperm(len(codes), generator=generator)[:num_items]] + offsets


def random_prompts(catalog: Tensor, lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Return left-padded prompts of these many items, as an item tokenizer writes them."""
    generator = torch.Generator().manual_seed(seed)
    width = 4 * max(lengths) + 1
    input_ids = torch.zeros(len(lengths), width, dtype=torch.long)
    session_ids = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        items = catalog[torch.randint(len(catalog), (length,), generator=generator)]
        behaviors = torch.randint(2, 6, (length, 1), generator=generator)
        sessions = torch.randint(1, length + 2, (length + 1,), generator=generator).sort().values
        input_ids[row, width - 1 - 4 * length : width - 1] = torch.cat([behaviors, items], dim=1).flatten()
        session_ids[row, width - 1 - 4 * length : width - 1] = sessions[:-1].repeat_interleave(4)
        input_ids[row, -1] = 2 + row % 4
        session_ids[row, -1] = sessions[-1] + row % 2  # even rows may ask inside the last session
    attention_mask = (torch.arange(width) >= width - 1 - 4 * torch.tensor(lengths)[:, None]).long()
    return {"input_ids": input_ids, "attention_mask": attention_mask, "session_ids": session_ids}


@torch.no_grad()
def item_log_probabilities(model: GamerForCausalLM, prompts: dict[str, Tensor], catalog: Tensor, row: int) -> Tensor:
    """Return each item's log-probabilities `[items, levels]`, one prompt at a time, unpadded, without a cache."""
    real = prompts["attention_mask"][row].bool()
    prompt, sessions = prompts["input_ids"][row, real], prompts["session_ids"][row, real]
    input_ids = torch.cat([prompt.expand(len(catalog), -1), catalog], dim=1)
    session_ids = torch.cat([sessions, sessions[-1:].expand(3)]).expand(len(catalog), -1)
    logits = model(input_ids=input_ids, session_ids=session_ids).logits[:, -4:-1]
    return logits.log_softmax(dim=-1).gather(2, catalog[..., None])[..., 0]


def brute_force(log_probabilities: Tensor, catalog: Tensor, width: int) -> dict[tuple[int, ...], float]:
    """Return item tokens -> score, best first, of a beam search over a plain set of prefixes."""
    beams = {(): 0.0}
    for depth in range(3):
        candidates = {}
        for tokens, gains in zip(catalog.tolist(), log_probabilities.tolist()):
            if tuple(tokens[:depth]) in beams:
                candidates[tuple(tokens[: depth + 1])] = beams[tuple(tokens[:depth])] + gains[depth]
        beams = dict(sorted(candidates.items(), key=lambda candidate: -candidate[1])[:width])
    return beams


def read(output: object, num_results: int) -> list[dict[tuple[int, ...], float]]:
    """Return item tokens -> score for each prompt, refusing repeated items."""
    tokens = output.sequences[:, -3:].unflatten(0, (-1, num_results)).tolist()
    scores = output.sequences_scores.unflatten(0, (-1, num_results)).tolist()
    rows = []
    for row_tokens, row_scores in zip(tokens, scores):
        real = [(tuple(item), score) for item, score in zip(row_tokens, row_scores) if score > -1e8]
        assert len({item for item, _ in real}) == len(real), "an item came out twice"
        assert [score for _, score in real] == sorted((score for _, score in real), reverse=True)
        rows.append(dict(real))
    return rows


def assert_same(found: dict[tuple[int, ...], float], expected: dict[tuple[int, ...], float]) -> None:
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-4)


def generate(model: GamerForCausalLM, prompts: dict[str, Tensor], width: int, trie: ItemTrie, **settings: object):
    """Run `generate` with the logits processor."""
    if not model.config.session_wise:
        prompts = {name: prompts[name] for name in ("input_ids", "attention_mask")}
    return model.generate(
        **prompts,
        num_beams=width,
        num_return_sequences=width,
        logits_processor=[TrieConstrainedLogitsProcessor(trie, **settings)],
        return_dict_in_generate=True,
        output_scores=True,
    )
