"""A model in bfloat16: scores are sums of float32 log-probabilities, near those of the float32 model."""

import pytest
import torch

from genrec.generation.beam_search import constrained_beam_search
from genrec.generation.prompts import read_prompts
from genrec.generation.shared_prompt import SharedPromptDecoder
from genrec.generation.trie import ItemTrie

from .search_oracle import VARIANTS, item_log_probabilities, random_catalog, random_prompts, read, tiny_model


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_float32_and_near(variant: str):
    model, catalog = tiny_model(**VARIANTS[variant], initializer_range=0.1), random_catalog(60)
    prompts = random_prompts(catalog, [3, 0, 7])
    trie = ItemTrie(catalog, model.config.vocab_size)
    exact = [item_log_probabilities(model, prompts, catalog, row).sum(dim=1) for row in range(3)]
    model = model.to(torch.bfloat16)
    output = constrained_beam_search(model, **prompts, trie=trie, num_beams=60, num_return_sequences=60)
    assert output.sequences_scores.dtype == torch.float32
    numbers = {tuple(item): row for row, item in enumerate(catalog.tolist())}
    for row, found in enumerate(read(output, 60)):
        assert len(found) == 60
        errors = [abs(score - float(exact[row][numbers[item]])) for item, score in found.items()]
        assert max(errors) < 0.05


def test_probabilities_add_up_as_float32_does():
    """Rounded to bfloat16, 21 log-probabilities would miss a sum of 1 by up to a hundredth."""
    model, catalog = tiny_model(softmax="level").to(torch.bfloat16), random_catalog(60)
    prompts = read_prompts(**random_prompts(catalog, [3, 1]), behaviors=None)
    decoder = SharedPromptDecoder(model, prompts, max_beams=1)
    with torch.no_grad():
        scores = decoder.step(prompts.behaviors, torch.zeros_like(prompts.behaviors), 0)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.exp().sum(dim=2), torch.ones(2, 1), atol=1e-6, rtol=0)
