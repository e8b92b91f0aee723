"""One batch of prompts through a search: the fast one, or transformers' own."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput

from genrec.generation.beam_search import constrained_beam_search, search
from genrec.generation.logits_processor import TrieConstrainedLogitsProcessor
from genrec.generation.prompts import CANDIDATES
from genrec.generation.search_buckets import BucketedSearch
from genrec.generation.trie import ItemTrie
from genrec.item_tokenizers.vocabulary import PAD

SEARCHES = ("fast", "generate")
FEWEST_BEAMS = 2  # with one, `generate` is greedy and returns no scores


class BatchSearch:
    """Finds the best codes for prompts.

    Args:
        model: A causal language model over the trie's vocabulary.
        name: `"fast"` or `"generate"`, see `GenerativeRecommender`.
        compiles: Whether to run the fast search compiled.

    Raises:
        ValueError: If there is no such search, or it cannot be used with the model or compiled.
    """

    def __init__(self, model: PreTrainedModel, name: str, compiles: bool = False) -> None:
        _check(model, name, compiles)
        self._searcher = BucketedSearch() if compiles else search
        self._run = self._at_once if name == "fast" else self._one_by_one

    def __call__(
        self, model: Any, prompts: list[dict[str, Tensor]], trie: ItemTrie, mask: Tensor | None, sizes: dict[str, int]
    ) -> Any:
        """Return `sequences` and `sequences_scores`, the behaviors of a user adjacent.

        Args:
            model: The model.
            prompts: For each behavior asked for, the model's inputs; they differ in that behavior only.
            trie: The catalog's codes.
            mask: Which items may come out, `[items]` or `[users, items]`, or None.
            sizes: `num_beams` and `num_return_sequences`.
        """
        return self._run(model, prompts, trie, mask, sizes)

    def _at_once(
        self, model: Any, prompts: list[dict[str, Tensor]], trie: ItemTrie, mask: Tensor | None, sizes: dict[str, int]
    ) -> Any:
        """Return the best codes, the behaviors of a user adjacent, of prompts that differ in the behavior asked for."""
        behaviors = torch.cat([each["input_ids"][:, -1:] for each in prompts], dim=1)
        of_requests = {
            name: torch.stack([each[name] for each in prompts], dim=1).flatten(0, 1)
            for name in CANDIDATES
            if name in prompts[0]
        }
        return constrained_beam_search(
            model,
            trie=trie,
            allowed_items=mask,
            behaviors=behaviors,
            searcher=self._searcher,
            **{**prompts[0], **of_requests, **sizes},  # type: ignore[arg-type]
        )

    def _one_by_one(
        self, model: Any, prompts: list[dict[str, Tensor]], trie: ItemTrie, mask: Tensor | None, sizes: dict[str, int]
    ) -> Any:
        """The same with `generate`."""
        outputs = [_generate(model, each, trie, mask, sizes) for each in prompts]
        num_users = len(prompts[0]["input_ids"])
        sequences = torch.stack([output.sequences.unflatten(0, (num_users, -1)) for output in outputs], dim=1)
        scores = torch.stack([output.sequences_scores.unflatten(0, (num_users, -1)) for output in outputs], dim=1)
        return GenerateBeamDecoderOnlyOutput(sequences=sequences.flatten(0, 2), sequences_scores=scores.flatten())  # type: ignore[arg-type]


def _generate(
    model: Any, prompts: dict[str, Tensor], trie: ItemTrie, mask: Tensor | None, sizes: dict[str, int]
) -> Any:
    settings = GenerationConfig(
        max_new_tokens=trie.num_levels,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=True,
        renormalize_logits=False,
        use_cache=True,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        **sizes,
    )
    settings.num_beams = max(settings.num_beams, FEWEST_BEAMS)
    known = inspect.signature(model.forward).parameters
    prompts = {name: part for name, part in prompts.items() if name in known}
    processor = TrieConstrainedLogitsProcessor(trie, mask)
    with _settings_of_its_own(model):
        return model.generate(**prompts, generation_config=settings, logits_processor=[processor])


def _check(model: PreTrainedModel, name: str, compiles: bool) -> None:
    if name not in SEARCHES:
        raise ValueError(f"`search` must be one of {', '.join(map(repr, SEARCHES))}, got {name!r}.")
    if name == "fast" and model.config.model_type != "gamer":
        raise ValueError(
            f"`search='fast'` knows how GAMER keeps its prompt; the model is {model.config.model_type!r}. Pass "
            "`search='generate'`, which works with every model."
        )
    if compiles and name != "fast":
        raise ValueError("`compile_search` compiles the fast search only. Leave it out, or pass `search='fast'`.")


@contextmanager
def _settings_of_its_own(model: PreTrainedModel) -> Iterator[None]:
    """Take the model's generation settings away, which `generate` mixes into those it is given."""
    inherited = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = inherited
