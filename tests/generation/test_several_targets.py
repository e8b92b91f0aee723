"""Several behaviors asked of one user at once: the same as one by one, with the history computed once."""

import pytest
import torch

from genrec.generation.beam_search import constrained_beam_search
from genrec.generation.trie import ItemTrie

from .search_oracle import VARIANTS, assert_same, random_catalog, random_prompts, read, tiny_model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("filtered", ["by nothing", "for each user", "for each list"])
def test_asking_for_all_equals_asking_one_by_one(variant: str, filtered: str):
    model, catalog = tiny_model(**VARIANTS[variant]), random_catalog(60)
    prompts, trie = random_prompts(catalog, [3, 0, 7]), ItemTrie(catalog, model.config.vocab_size)
    behaviors = torch.tensor([[2, 5], [4, 3], [3, 3]])
    num_rows = {"by nothing": 0, "for each user": 3, "for each list": 6}[filtered]
    allowed = torch.rand(num_rows, 60, generator=torch.Generator().manual_seed(0)) < 0.5 if num_rows else None
    sizes = {"trie": trie, "num_beams": 7, "num_return_sequences": 7}
    together = constrained_beam_search(model, **prompts, behaviors=behaviors, allowed_items=allowed, **sizes)
    lists = read(together, 7)
    assert len(lists) == 6
    for target in range(2):
        prompts["input_ids"][:, -1] = behaviors[:, target]
        mask = allowed[target::2] if filtered == "for each list" else allowed
        alone = constrained_beam_search(model, **prompts, allowed_items=mask, **sizes)
        for user, expected in enumerate(read(alone, 7)):
            assert_same(lists[2 * user + target], expected)
        assert together.sequences[7 * target :: 14, :-3].equal(prompts["input_ids"])


def test_the_history_is_computed_once_for_all_targets():
    model, catalog = tiny_model(), random_catalog(60)
    shapes: list[tuple[int, ...]] = []
    model.model.layers[0].input_layernorm.register_forward_hook(lambda _, args, __: shapes.append(args[0].shape[:2]))
    trie = ItemTrie(catalog, model.config.vocab_size)
    behaviors = torch.tensor([2, 3, 5])
    output = constrained_beam_search(
        model, **random_prompts(catalog, [5, 2]), behaviors=behaviors, trie=trie, num_beams=7
    )
    assert shapes == [(2, 20), (2, 3), (2, 15), (2, 21)]
    assert output.sequences[:, -4].tolist() == [2, 3, 5, 2, 3, 5]


def test_generate_hands_behaviors_on():
    model, catalog = tiny_model(session_wise=True), random_catalog(60)
    prompts, trie = random_prompts(catalog, [5, 2]), ItemTrie(catalog, model.config.vocab_size)
    settings = {"trie": trie, "num_beams": 6, "num_return_sequences": 3, "behaviors": torch.tensor([[2, 3], [5, 4]])}
    direct = constrained_beam_search(model, **prompts, **settings)
    assert model.generate(**prompts, **settings, custom_generate=constrained_beam_search).equal(direct.sequences)


@pytest.mark.parametrize(
    ("behaviors", "message"),
    [
        ([[2], [3], [4]], r"must be \[targets\] or \[batch, targets\] for the 2 prompts, .* got \[3, 1\]"),
        ([[[2]], [[3]]], r"for the 2 prompts, .* got \[2, 1, 1\]"),
        ([], r"at least one target, got \[2, 0\]"),
        ([1, 2], r"must be tokens from 2 to 5, got \[1, 2\]"),
        ([6], r"must be tokens from 2 to 5, got \[6\]"),
    ],
)
def test_other_behaviors_are_refused(behaviors: list, message: str):
    model, catalog = tiny_model(), random_catalog(20)
    prompts, trie = random_prompts(catalog, [2, 1]), ItemTrie(catalog, model.config.vocab_size)
    with pytest.raises(ValueError, match=message):
        constrained_beam_search(model, **prompts, trie=trie, behaviors=torch.tensor(behaviors, dtype=torch.long))
