"""Random models, catalogs, histories and filters: the fast search, `generate` and brute force find the same."""

import random

import pytest
import torch

from genrec.generation.beam_search import constrained_beam_search
from genrec.generation.search_buckets import BucketedSearch
from genrec.generation.trie import ItemTrie

from .search_oracle import (
    PLAIN,
    assert_same,
    brute_force,
    generate,
    item_log_probabilities,
    random_catalog,
    random_prompts,
    read,
    tiny_model,
)


def random_fields(draw: random.Random) -> dict[str, object]:
    """Draw a configuration."""
    heads = draw.choice([(4, 2), (2, 2), (3, 1)])
    fields = {
        "num_hidden_layers": 2,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "session_wise": draw.random() < 0.5,
        "softmax": draw.choice(["full", "level"]),
        "tie_word_embeddings": draw.random() < 0.5,
    }
    if draw.random() < 0.3:
        return {**fields, **PLAIN}
    layers = [[], [0], [1], [0, 1]]
    return {
        **fields,
        "cross_level_layers": draw.choice(layers),
        "behavior_injection_layers": draw.choice(layers),
        "position_experts": draw.random() < 0.7,
    }


@pytest.mark.parametrize("seed", range(24))
def test_all_paths_agree(seed: int):
    draw = random.Random(seed)
    model = tiny_model(seed, **random_fields(draw))
    catalog = random_catalog(draw.choice([1, 2, 9, 40, 120]), seed)
    lengths = [draw.randint(0, 6) for _ in range(draw.randint(1, 3))]
    prompts, trie = random_prompts(catalog, lengths, seed), ItemTrie(catalog, model.config.vocab_size)
    rows = draw.choice([(), (len(lengths),)])
    allowed = torch.rand(*rows, len(catalog), generator=torch.Generator().manual_seed(seed)) < draw.choice([0, 0.3, 1])
    width = draw.choice([2, 3, 7, 30])
    sizes = {"trie": trie, "num_beams": width, "num_return_sequences": width, "allowed_items": allowed}
    fast = read(constrained_beam_search(model, **prompts, **sizes), width)
    searcher = BucketedSearch(item_multiple=draw.randint(1, 9), compiles=False)
    bucketed = read(constrained_beam_search(model, **prompts, **sizes, searcher=searcher), width)
    slow = read(generate(model, prompts, width, trie, allowed_items=allowed), width)
    for row, (found, padded, by_generate) in enumerate(zip(fast, bucketed, slow, strict=True)):
        mask = allowed[row] if rows else allowed
        log_probabilities = item_log_probabilities(model, prompts, catalog, row)[mask]
        expected = brute_force(log_probabilities, catalog[mask], width)
        assert_same(found, expected)
        assert_same(padded, expected)
        assert_same(by_generate, expected)
