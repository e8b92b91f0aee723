"""Building a trie over the catalog, its memory, and masking plus selection in one step of beam search.

    python -m benchmarks.speed.trie [--quick] [--large]

`--large` adds 20 million items, which nested dictionaries are not asked to hold.
"""

import gc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.baselines.dict_trie import DictTrie, allowed_tokens, build_dict_trie
from benchmarks.speed.baselines.marisa import MarisaTrie
from benchmarks.speed.harness import Contender, Results, Settings, run
from benchmarks.speed.workload import item_tokens, item_trie, random_codes, random_config
from genrec.generation import ItemTrie, TrieConstrainedLogitsProcessor
from genrec.generation.selection import Beams, extend
from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR
from genrec.models.gamer import GamerConfig

SIZES, LARGE = (17_000, 300_000, 1_300_000), 20_000_000
BEAMS = (20, 70, 256)
STEPS_PER_RUN = 5  # each of the lower levels so often, for a clock that reads milliseconds
CHECKED_PREFIXES = 200
LARGEST_CACHED_INT = 256  # Python keeps one object for each integer up to here

Allowed = Callable[[list[int]], list[int]]


@dataclass(frozen=True)
class Step:
    """One step of one user's beams.

    Args:
        prefixes: The codes so far `[beams, level]`, in order.
        scores: `[beams]`.
        log_probabilities: Over the whole vocabulary `[beams, vocabulary]`.
    """

    prefixes: Tensor
    scores: Tensor
    log_probabilities: Tensor


def random_steps(tokens: Tensor, vocab_size: int, num_beams: int, seed: int, device: str) -> list[Step]:
    """Return a step for each level but the first, at random prefixes of items; where a level has fewer, at all."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for level in range(1, tokens.shape[1]):
        sample = tokens[torch.randperm(len(tokens), generator=generator)[: 50 * num_beams], :level]
        prefixes = sample.unique(dim=0)
        chosen = torch.randperm(len(prefixes), generator=generator)[:num_beams].sort().values
        logits = torch.randn(len(chosen), vocab_size, generator=generator)
        scores = torch.randn(len(chosen), generator=generator)
        parts = (prefixes[chosen], scores, logits.log_softmax(dim=-1))
        steps.append(Step(*(part.to(device) for part in parts)))
    return steps


def select_by_lookup(allowed: Allowed, steps: Sequence[Step]) -> list[Tensor]:
    """Return each step's best scores as transformers finds them: look up beam by beam, mask the vocabulary, `topk`."""
    best = []
    for step in steps:
        mask = torch.full_like(step.log_probabilities, -torch.inf)
        for beam, prefix in enumerate(step.prefixes):
            mask[beam, allowed(prefix.tolist())] = 0
        best.append(_top(step, step.log_probabilities + mask))
    return best


def select_by_processor(processor: TrieConstrainedLogitsProcessor, steps: Sequence[Step]) -> list[Tensor]:
    """Return each step's best scores, masked by our logits processor."""
    best = []
    for step in steps:
        behaviors = step.prefixes.new_full((len(step.prefixes), 1), FIRST_BEHAVIOR)
        input_ids = torch.cat([behaviors, step.prefixes], dim=1)
        best.append(_top(step, processor(input_ids, step.log_probabilities)))
    return best


def _top(step: Step, masked: Tensor) -> Tensor:
    return (masked + step.scores[:, None]).flatten().topk(len(step.scores)).values


def select_by_search(trie: ItemTrie, steps: Sequence[tuple[Beams, Tensor]]) -> list[Tensor]:
    """Return each step's best scores as `constrained_beam_search` finds them."""
    best = []
    for beams, log_probabilities in steps:
        level, width = beams.tokens.shape[2], beams.nodes.shape[1]
        best.append(extend(beams, log_probabilities, trie, None, level, trie.level_offsets[level], width).scores[0])
    return best


def as_beams(trie: ItemTrie, config: GamerConfig, step: Step) -> tuple[Beams, Tensor]:
    """Return a step as the search holds it: nodes, and the log-probabilities of the level's codes only."""
    level = step.prefixes.shape[1]
    nodes = trie.walk(step.prefixes)[None]
    start = config.level_offsets[level]
    log_probabilities = step.log_probabilities[None, :, start : start + config.codebook_sizes[level]].contiguous()
    return Beams(nodes, step.scores[None], step.prefixes[None], torch.zeros_like(nodes)), log_probabilities


def check_best(outputs: dict[str, list[Tensor]]) -> None:
    """Refuse contenders whose best scores differ.

    Raises:
        AssertionError: If they do; the message names them.
    """
    (first, expected), *others = outputs.items()
    for name, found in others:
        for level, (ours, theirs) in enumerate(zip(found, expected, strict=True), start=1):
            ours = ours.sort(descending=True).values
            assert torch.allclose(ours, theirs, atol=1e-5), f"`{name}` and `{first}` select differently at {level}."


def check_allowed(structures: dict[str, Any], tokens: Tensor, seed: int) -> None:
    """Refuse tries that allow different tokens after random prefixes, some of which begin no item.

    Raises:
        AssertionError: If they do; the message names the prefix.
    """
    generator = torch.Generator().manual_seed(seed)
    for level in range(tokens.shape[1]):
        rows = tokens[torch.randint(len(tokens), (CHECKED_PREFIXES,), generator=generator), :level]
        if level > 1:
            rows[::4, -1] = rows[1::4, -1]  # mixed from two items
        for prefix in rows.tolist():
            found = {name: sorted(allowed_by(structure)(prefix)) for name, structure in structures.items()}
            assert len(set(map(tuple, found.values()))) == 1, f"After {prefix} different tokens are allowed: {found}."


def allowed_by(structure: Any) -> Allowed:
    """Return a structure's function from a prefix to the tokens that may follow."""
    if isinstance(structure, ItemTrie):
        return lambda prefix: _allowed_by_item_trie(structure, prefix)
    return structure.allowed_tokens if isinstance(structure, MarisaTrie) else partial(allowed_tokens, structure)


def _allowed_by_item_trie(trie: ItemTrie, prefix: list[int]) -> list[int]:
    node = trie.walk(torch.tensor([prefix], dtype=torch.long, device=trie.device))
    return trie.allowed_mask(node)[0].nonzero()[:, 0].tolist()


def dict_bytes(root: DictTrie) -> int:
    """Return the memory of nested dictionaries and the integers that are their keys."""
    total, stack = 0, [root]
    while stack:
        node = stack.pop()
        total += sys.getsizeof(node) + sum(sys.getsizeof(key) for key in node if key > LARGEST_CACHED_INT)
        stack.extend(node.values())
    return total


def measure(settings: Settings) -> Results:
    """Return build times, bytes and steps per second, for codes that are evenly and unevenly used."""
    results = Results(settings)
    config = random_config("gamer-base")
    for num_items in settings.choose(SIZES, (2_000, 17_000)):
        for zipf in (False, True):
            tokens = item_tokens(config, random_codes(num_items, config.num_levels, settings.seed, zipf))
            label = f"{num_items}{'-zipf' if zipf else ''}"
            structures = measure_build(results, config, tokens, label)
            measure_steps(results, config, tokens, label, structures)
            del structures
            gc.collect()
    if settings.large:
        tokens = item_tokens(config, random_codes(LARGE, config.num_levels, settings.seed))
        measure_build(results, config, tokens, str(LARGE), baselines=False)
    return results


def measure_build(
    results: Results, config: GamerConfig, tokens: Tensor, label: str, baselines: bool = True
) -> dict[str, Any]:
    """Time building each structure, keep its bytes, and return the structures."""
    builders = {"item_trie": partial(item_trie, config, tokens)}
    if baselines:
        builders = {"dict_trie": partial(build_dict_trie, tokens), **builders}
        if importlib.util.find_spec("marisa_trie"):
            builders["marisa_trie"] = partial(MarisaTrie, tokens)
    structures: dict[str, Any] = {}

    def check(outputs: dict[str, Any]) -> None:
        structures.update(outputs)
        check_allowed(outputs, tokens, results.settings.seed)

    rows = results.compare(
        f"build@{label}",
        [Contender(name, build) for name, build in builders.items()],
        baseline=next(iter(builders)),
        work=len(tokens),
        unit="items",
        repeats=5,
        max_seconds=15,
        check=check,
    )
    structures["item_trie"] = structures["item_trie"].to(results.settings.device)
    sizes = {"item_trie": structures["item_trie"].num_bytes}
    if baselines:
        sizes["dict_trie"] = dict_bytes(structures["dict_trie"])
    for name, size in sizes.items():
        results.add(f"bytes@{label}", name, bytes=size)
    if baselines:
        results.ratio(f"trie_build/dict_trie@{label}", rows["dict_trie"].median / rows["item_trie"].median)
        results.ratio(f"trie_bytes/dict_trie@{label}", sizes["dict_trie"] / sizes["item_trie"])
    return structures


def measure_steps(
    results: Results, config: GamerConfig, tokens: Tensor, label: str, structures: dict[str, Any]
) -> None:
    """Time masking and selection at the lower levels for several numbers of beams."""
    trie = structures["item_trie"]
    for num_beams in results.settings.choose(BEAMS, BEAMS[:1]):
        steps = random_steps(tokens, trie.vocab_size, num_beams, results.settings.seed, results.settings.device)
        ours = [as_beams(trie, config, step) for step in steps]
        calls: dict[str, Callable[[], list[Tensor]]] = {
            name: partial(select_by_lookup, allowed_by(structure), steps * STEPS_PER_RUN)
            for name, structure in structures.items()
            if name != "item_trie"
        }
        processor = TrieConstrainedLogitsProcessor(trie)
        calls["processor"] = partial(select_by_processor, processor, steps * STEPS_PER_RUN)
        calls["search"] = partial(select_by_search, trie, ours * STEPS_PER_RUN)
        rows = results.compare(
            f"step@{label}x{num_beams}",
            [Contender(name, call) for name, call in calls.items()],
            baseline="dict_trie",
            work=len(steps) * STEPS_PER_RUN,
            unit="steps",
            repeats=results.settings.choose(15, 5),
            max_seconds=3,
            check=check_best,
        )
        results.ratio(f"trie_step/dict_trie@{label}x{num_beams}", rows["dict_trie"].median / rows["search"].median)


if __name__ == "__main__":
    run("trie", measure)
