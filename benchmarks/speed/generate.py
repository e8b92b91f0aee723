"""Users per second of constrained beam search, beside transformers' `generate` over the same model and weights.

    python -m benchmarks.speed.generate [--quick] [--device cuda] [--large]

Contenders: `dict_trie` is `generate` with `prefix_allowed_tokens_fn` over nested dictionaries, as the field does it;
`processor` is `generate` with our logits processor; `search` is `constrained_beam_search`. On CUDA all run in bf16 too,
`graph` is the search captured as one CUDA graph, and `generate` gets large batches in parts, since it repeats each
prompt for every beam. `compiled` is the search compiled, and captured on CUDA: since compiling takes minutes, it takes
part in bf16 at the smallest and largest batch only, and everywhere with `--large`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.speed.baselines.dict_trie import DictTrie, build_dict_trie, generate_with_dict_trie
from benchmarks.speed.harness import Contender, Results, Row, Settings, peak_memory_mb, run
from benchmarks.speed.limits import Peaks, measure_peaks, search_cost
from benchmarks.speed.stages import stage_seconds
from benchmarks.speed.workload import item_tokens, item_trie, random_codes, random_model, random_prompts
from genrec.generation import ItemTrie, TrieConstrainedLogitsProcessor, constrained_beam_search
from genrec.generation.beam_search import Search, search
from genrec.generation.search_buckets import BucketedSearch
from genrec.models.gamer import GamerForCausalLM

OURS, GRAPH, COMPILED = "search", "graph", "compiled"
BASELINES = ("dict_trie", "processor")
TOLERANCE = 1e-4
BF16_OVERLAP, BF16_TOLERANCE = 0.8, 0.25  # items in common, and nats between the best scores
WARMUP = {GRAPH: 2, COMPILED: 2}  # the first run captures and compiles
GENERATE_BATCH = 64  # users that `generate` is given at once at most


class Found(NamedTuple):
    """The best items of each user.

    Args:
        items: Token ids of the items' codes `[users, results, levels]`.
        scores: Sums of log-probabilities, best first `[users, results]`.
    """

    items: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Setup:
    """A model, a catalog and how to search it."""

    model: GamerForCausalLM
    tokens: Tensor
    trie: ItemTrie
    dict_trie: DictTrie
    history_items: int
    num_beams: int
    searchers: Mapping[str, Search]

    @classmethod
    def make(cls, quick: bool, device: str, seed: int, dtype: torch.dtype = torch.float32) -> "Setup":
        """Return the benchmark's setting, or a small one."""
        model = random_model("gamer-tiny" if quick else "gamer-base", seed=seed)
        tokens = item_tokens(model.config, random_codes(2000 if quick else 20_000, model.config.num_levels, seed))
        trie = item_trie(model.config, tokens).to(device)
        model = model.to(device, dtype)  # type: ignore[arg-type]
        searchers: dict[str, Search] = {OURS: search, GRAPH: BucketedSearch(compiles=False), COMPILED: BucketedSearch()}
        return cls(model, tokens, trie, build_dict_trie(tokens), 10 if quick else 100, 20, searchers)

    def prompts(self, batch_size: int, history_items: int | None = None, seed: int = 0) -> dict[str, Tensor]:
        """Return users' inputs on the model's device."""
        prompts = random_prompts(self.tokens, batch_size, history_items or self.history_items, seed)
        return {name: values.to(self.model.device) for name, values in prompts.items()}

    def found_by(self, name: str, prompts: dict[str, Tensor]) -> Found:
        """Return what a contender finds."""
        if name in self.searchers:
            return self._read(self._search(prompts, self.searchers[name]))
        method = self._generate_with_dict_trie if name == "dict_trie" else self._generate_with_processor
        parts = [self._read(method(part)) for part in _parts(prompts, GENERATE_BATCH)]
        return Found(torch.cat([part.items for part in parts]), torch.cat([part.scores for part in parts]))

    def _search(self, prompts: dict[str, Tensor], searcher: Search) -> Any:
        beams = {"num_beams": self.num_beams, "num_return_sequences": self.num_beams}
        return constrained_beam_search(self.model, **prompts, trie=self.trie, searcher=searcher, **beams)

    def _generate_with_dict_trie(self, prompts: dict[str, Tensor]) -> Any:
        return generate_with_dict_trie(self.model, prompts, self.dict_trie, self.num_beams, self.num_beams)

    def _generate_with_processor(self, prompts: dict[str, Tensor]) -> Any:
        model: Any = self.model
        return model.generate(
            **prompts,
            logits_processor=[TrieConstrainedLogitsProcessor(self.trie)],
            num_beams=self.num_beams,
            num_return_sequences=self.num_beams,
            return_dict_in_generate=True,
            output_scores=True,
        )

    def _read(self, output: Any) -> Found:
        items = output.sequences[:, -self.model.config.num_levels :]
        return Found(items.unflatten(0, (-1, self.num_beams)), output.sequences_scores.view(-1, self.num_beams).float())


def _parts(prompts: dict[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(prompts["input_ids"]), size):
        yield {name: values[start : start + size] for name, values in prompts.items()}


def check_equal(outputs: dict[str, Found]) -> None:
    """Refuse contenders that disagree with the first.

    Scores must be within 1e-4 of each other, place by place and item by item; items may differ only where they tie
    with the last place within 1e-4.

    Raises:
        AssertionError: If two contenders disagree; the message names them.
    """
    (first, expected), *others = outputs.items()
    for name, found in others:
        gap = (found.scores - expected.scores).abs().max().item()
        assert gap <= TOLERANCE, f"`{name}` and `{first}` find scores that are {gap:.2g} apart."
        for user, (ours, theirs) in enumerate(zip(_by_item(found), _by_item(expected), strict=True)):
            edge = min(theirs.values()) + TOLERANCE
            strays = [item for item in ours.keys() ^ theirs.keys() if {**ours, **theirs}[item] > edge]
            assert not strays, f"User {user}: only one of `{name}` and `{first}` finds {strays}."
            apart = [item for item in ours.keys() & theirs.keys() if abs(ours[item] - theirs[item]) > TOLERANCE]
            assert not apart, f"User {user}: `{name}` and `{first}` score {apart} differently."


def check_bf16(outputs: dict[str, Found], exact: Found) -> None:
    """Refuse contenders in bf16 that find something else than the search in fp32.

    Raises:
        AssertionError: If too few items are in common or the best scores are too far away; the message says how far.
    """
    for name, found in outputs.items():
        rows = zip(_by_item(found), _by_item(exact), strict=True)
        overlap = sum(len(ours.keys() & theirs.keys()) for ours, theirs in rows) / exact.scores.numel()
        gap = (found.scores[:, 0] - exact.scores[:, 0]).abs().max().item()
        close = overlap >= BF16_OVERLAP and gap <= BF16_TOLERANCE
        assert close, (
            f"`{name}` in bf16 shares {overlap:.0%} of the items with fp32, its best scores are {gap:.2g} off."
        )


def _by_item(found: Found) -> list[dict[tuple[int, ...], float]]:
    return [
        {tuple(item): score for item, score in zip(items, scores, strict=True)}
        for items, scores in zip(found.items.tolist(), found.scores.tolist(), strict=True)
    ]


def measure(settings: Settings) -> Results:
    """Return users/s and ratios for each batch size, memory, and where a search spends its time."""
    results = Results(settings)
    on_cuda = settings.device == "cuda"
    batches = settings.choose([1, 8, 64, 256, 1024] if on_cuda else [1, 8], [1, 2])
    setup = Setup.make(settings.quick, settings.device, settings.seed)
    exact = compare_batches(results, setup, batches, "search", measure_peaks(settings.device, quick=settings.quick))
    measure_stages(results, setup, batches)
    measure_memory(results, settings, batches[1])
    if on_cuda:
        half = Setup.make(settings.quick, settings.device, settings.seed, torch.bfloat16)
        peaks = measure_peaks(settings.device, torch.bfloat16, settings.quick)
        compare_batches(results, half, batches, "search-bf16", peaks, exact)
        measure_stages(results, half, batches, "stages-bf16")
    return results


def compare_batches(
    results: Results,
    setup: Setup,
    batches: Sequence[int],
    table: str,
    peaks: Peaks,
    exact: dict[int, Found] | None = None,
) -> dict[int, Found]:
    """Time all contenders at each batch size.

    Args:
        results: Where rows and ratios go.
        setup: What to run.
        batches: Users at once.
        table: The table's name and the beginning of the ratios' keys.
        peaks: What the machine can do.
        exact: What the search finds in fp32; None compares the contenders with each other.

    Returns:
        What our search finds, by batch size.
    """
    found = {}
    limit = peaks.per_second(search_cost(setup.model.config, setup.history_items, setup.num_beams))
    for batch_size in batches:
        prompts = setup.prompts(batch_size)
        found[batch_size] = setup.found_by(OURS, prompts)
        names = (*BASELINES, *ours(results.settings, exact is not None and batch_size in (batches[0], batches[-1])))
        rows = results.compare(
            f"{table}@{batch_size}",
            [Contender(name, partial(setup.found_by, name, prompts), WARMUP.get(name)) for name in names],
            baseline=BASELINES[0],
            work=batch_size,
            unit="users",
            repeats=results.settings.choose(9, 3),
            max_seconds=20 if results.settings.device == "cuda" else 70,
            check=check_equal if exact is None else partial(check_bf16, exact=exact[batch_size]),
            limit=limit,
        )
        keep_ratios(results, rows, table, batch_size)
    return found


def ours(settings: Settings, is_worth_compiling: bool) -> list[str]:
    """Return which forms of our search take part.

    Args:
        settings: The device, and whether minutes of compiling are welcome.
        is_worth_compiling: Whether, on CUDA, they are in this table in any case.
    """
    on_cuda = settings.device == "cuda"
    graph = [GRAPH] if on_cuda else []
    compiled = [COMPILED] if settings.large or (on_cuda and is_worth_compiling) else []
    return [OURS, *graph, *compiled]


def keep_ratios(results: Results, rows: dict[str, Row], table: str, batch_size: int) -> None:
    """Keep how many times faster each form of our search is than each baseline."""
    for name in [name for name in rows if name not in BASELINES]:
        key = table if name == OURS else f"{table}-{name}"
        for baseline in BASELINES:
            results.ratio(f"{key}/{baseline}@{batch_size}", rows[baseline].median / rows[name].median)


def measure_stages(results: Results, setup: Setup, batches: Sequence[int], table: str = "stages") -> None:
    """Keep how a search divides into reading the history, decoding, and masking and selection."""
    for batch_size in batches:
        stages = stage_seconds(
            setup.model, setup.prompts(batch_size), setup.trie, setup.num_beams, results.settings.choose(9, 3)
        )
        total = sum(stages.values())
        share = stages["select"] / (stages["decode"] + stages["select"])
        shares = {f"{name}_share": seconds / total for name, seconds in stages.items()}
        results.add(f"{table}@{batch_size}", OURS, **{"select/decode_step": share, "seconds": total, **shares})


def measure_memory(results: Results, settings: Settings, batch_size: int) -> None:
    """Keep each contender's peak memory above what its process held before, and how many times ours it is."""
    megabytes = {}
    for name in (*BASELINES, OURS):
        results.say(f"memory@{batch_size}: {name}")
        arguments = (name, batch_size, settings.quick, settings.device, settings.seed)
        megabytes[name] = peak_memory_mb(prepare_search, *arguments, device=settings.device)
        results.add(f"memory@{batch_size}", name, peak_mb=megabytes[name])
    for name in BASELINES:
        results.ratio(f"memory/{name}@{batch_size}", megabytes[name] / megabytes[OURS])


def prepare_search(name: str, batch_size: int, quick: bool, device: str, seed: int) -> Callable[[], Found]:
    """Return a contender's call, after a small one that loads what loads at the first use."""
    setup = Setup.make(quick, device, seed)
    setup.found_by(name, setup.prompts(1, history_items=2))
    return partial(setup.found_by, name, setup.prompts(batch_size))


if __name__ == "__main__":
    run("generate", measure)
