"""The benchmarks of the search: baselines are right, checks refuse what differs, the arithmetic counts."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import generate, growth, limits, stages, trie, workload
from benchmarks.speed.baselines.dict_trie import allowed_tokens, build_dict_trie
from benchmarks.speed.baselines.marisa import MarisaTrie
from benchmarks.speed.generate import Found, Setup, check_bf16, check_equal
from benchmarks.speed.harness import Results, Row, Settings
from benchmarks.speed.limits import Cost, Peaks
from benchmarks.speed.workload import item_tokens, item_trie, random_codes, random_config, random_model, random_prompts
from genrec.generation import constrained_beam_search

QUICK = Settings(quick=True)


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Setup.make(quick=True, device="cpu", seed=0)


@pytest.fixture(scope="module")
def small_catalog():
    """Tokens of items, some sharing prefixes, and both tries."""
    config = random_config("gamer-tiny", num_levels=3)
    tokens = item_tokens(config, random_codes(300, 3, zipf=True))
    return tokens, {"dict_trie": build_dict_trie(tokens), "item_trie": item_trie(config, tokens)}


@pytest.mark.parametrize("zipf", [False, True])
def test_random_codes_are_distinct_and_repeatable(zipf):
    codes = random_codes(5000, num_levels=3, seed=1, zipf=zipf)
    assert codes.shape == (5000, 3)
    assert len(codes.unique(dim=0)) == 5000
    assert (codes.min(), codes.max()) == (0, 255)
    assert torch.equal(codes, random_codes(5000, num_levels=3, seed=1, zipf=zipf))
    assert not torch.equal(codes, random_codes(5000, num_levels=3, seed=2, zipf=zipf))


def test_zipf_codes_favor_the_first():
    uniform, zipf = (random_codes(5000, num_levels=4, zipf=zipf) for zipf in (False, True))
    assert (zipf == 0).float().mean() > 10 * (uniform == 0).float().mean()


def test_more_items_than_codes_are_refused():
    with pytest.raises(ValueError, match="Add levels"):
        random_codes(257, num_levels=1)
    assert len(random_codes(256, num_levels=1)) == 256


def test_prompts_are_items_and_the_behavior_asked_for(setup):
    input_ids = random_prompts(setup.tokens, batch_size=2, history_items=3)["input_ids"]
    assert input_ids.shape == (2, 16)
    items = input_ids[:, :-1].view(2, 3, 5)
    assert (setup.trie.walk(items[..., 1:]) >= 0).all()
    assert ((items[..., 0] >= 2) & (items[..., 0] < 5)).all()
    assert input_ids[:, -1].tolist() == [4, 4]


def test_all_contenders_find_the_same(setup):
    prompts = setup.prompts(batch_size=2, history_items=3)
    found = {name: setup.found_by(name, prompts) for name in (*generate.BASELINES, generate.OURS)}
    check_equal(found)
    assert found["search"].items.shape == (2, 20, 4)
    assert (setup.trie.walk(found["dict_trie"].items) >= 0).all()


def test_large_batches_reach_generate_in_parts(setup, monkeypatch):
    prompts = setup.prompts(batch_size=3, history_items=2)
    whole = setup.found_by("processor", prompts)
    monkeypatch.setattr(generate, "GENERATE_BATCH", 2)
    check_equal({"whole": whole, "in parts": setup.found_by("processor", prompts)})


def found(scores: list[float], last_item: int = 9) -> Found:
    items = torch.tensor([[[1, 2], [3, 4], [5, last_item]]])
    return Found(items, torch.tensor([scores]))


def test_outputs_may_differ_only_in_ties_with_the_last_place():
    check_equal({"a": found([-1.0, -2.0, -3.0]), "b": found([-1.0, -2.00005, -3.0])})
    check_equal({"a": found([-1.0, -2.0, -3.0]), "b": found([-1.0, -2.0, -3.00005], last_item=8)})
    with pytest.raises(AssertionError, match="apart"):
        check_equal({"a": found([-1.0, -2.0, -3.0]), "b": found([-1.0, -2.001, -3.0])})


def test_an_item_that_only_one_contender_finds_is_refused():
    tops = [found([-1.0, -2.0, -3.0])._replace(items=torch.tensor([[[first, 2], [3, 4], [5, 6]]])) for first in (1, 7)]
    with pytest.raises(AssertionError, match="only one of `b` and `a` finds"):
        check_equal({"a": tops[0], "b": tops[1]})


def test_items_with_each_others_scores_are_refused():
    swapped = found([-1.0, -2.0, -3.0])._replace(items=torch.tensor([[[3, 4], [1, 2], [5, 9]]]))
    with pytest.raises(AssertionError, match="differently"):
        check_equal({"a": found([-1.0, -2.0, -3.0]), "b": swapped})


def test_bf16_must_find_nearly_the_same():
    exact = found([-1.0, -2.0, -3.0])
    check_bf16({"a": found([-1.1, -2.0, -3.0])}, exact)
    with pytest.raises(AssertionError, match="shares 67%"):
        check_bf16({"a": found([-1.0, -2.0, -3.0], last_item=8)}, exact)
    with pytest.raises(AssertionError, match="0.5 off"):
        check_bf16({"a": found([-1.5, -2.0, -3.0])}, exact)


def test_bf16_search_passes_its_check(setup):
    half = Setup.make(quick=True, device="cpu", seed=0, dtype=torch.bfloat16)
    prompts = setup.prompts(batch_size=2)
    check_bf16({"search": half.found_by("search", prompts)}, setup.found_by("search", prompts))


def test_batches_become_ratios_to_both_baselines(setup):
    results = Results(QUICK)
    generate.compare_batches(results, setup, [1], "search", Peaks(1e9, 1e9, 4))
    assert set(results.ratios) == {"search/dict_trie@1", "search/processor@1"}
    medians = {row["name"]: row["median_seconds"] for row in results.rows}
    assert results.ratios["search/processor@1"] == pytest.approx(medians["processor"] / medians["search"])
    assert all(row["of_limit"] > 0 for row in results.rows)


@pytest.mark.parametrize(
    ("settings", "is_worth_compiling", "names"),
    [
        (Settings(), True, ["search"]),
        (Settings(large=True), False, ["search", "compiled"]),
        (Settings(device="cuda"), False, ["search", "graph"]),
        (Settings(device="cuda"), True, ["search", "graph", "compiled"]),
    ],
)
def test_compiling_takes_part_where_its_minutes_are_wanted(settings, is_worth_compiling, names):
    assert generate.ours(settings, is_worth_compiling) == names


def test_each_form_of_our_search_has_ratios_of_its_own():
    seconds = {"dict_trie": 12.0, "processor": 9.0, "search": 3.0, "compiled": 1.5}
    rows = {name: Row("table", name, [time], 8, "users") for name, time in seconds.items()}
    results = Results(QUICK)
    generate.keep_ratios(results, rows, "search", 8)
    assert results.ratios == {
        "search/dict_trie@8": 4.0,
        "search/processor@8": 3.0,
        "search-compiled/dict_trie@8": 8.0,
        "search-compiled/processor@8": 6.0,
    }


def test_a_padded_search_finds_the_same(setup):
    prompts = setup.prompts(batch_size=3, history_items=7)
    check_equal({name: setup.found_by(name, prompts) for name in ("search", "graph")})


def test_memory_becomes_ratios_to_both_baselines(monkeypatch):
    megabytes = {"dict_trie": 60.0, "processor": 50.0, "search": 10.0}
    monkeypatch.setattr(generate, "peak_memory_mb", lambda prepare, name, *arguments, device: megabytes[name])
    results = Results(QUICK)
    generate.measure_memory(results, QUICK, batch_size=8)
    assert results.ratios == {"memory/dict_trie@8": 6.0, "memory/processor@8": 5.0}
    assert [row["peak_mb"] for row in results.rows] == [60.0, 50.0, 10.0]


def test_what_memory_is_measured_of_is_the_contenders_call():
    call = generate.prepare_search("search", 2, True, "cpu", 0)
    assert call().items.shape == (2, 20, 4)


def test_the_search_by_stages_is_the_search(setup):
    prompts = setup.prompts(batch_size=2)
    arguments = {**prompts, "trie": setup.trie, "num_beams": 5, "num_return_sequences": 5}
    clock = stages.Clock(torch.device("cpu"))
    timed = constrained_beam_search(setup.model, **arguments, searcher=stages.timed_search(clock))
    plain = constrained_beam_search(setup.model, **arguments)
    assert torch.equal(timed.sequences, plain.sequences)
    assert torch.equal(timed.sequences_scores, plain.sequences_scores)
    assert set(clock.seconds) == set(stages.STAGES)


def test_stages_add_up_to_one(setup):
    results = Results(QUICK)
    generate.measure_stages(results, setup, [2])
    (row,) = results.rows
    assert sum(row[f"{stage}_share"] for stage in stages.STAGES) == pytest.approx(1)
    assert 0 < row["select/decode_step"] < 1


def test_the_tries_allow_the_same(small_catalog):
    tokens, structures = small_catalog
    trie.check_allowed(structures, tokens, seed=0)
    assert allowed_tokens(structures["dict_trie"], [10**6]) == []


@pytest.mark.skipif(importlib.util.find_spec("marisa_trie") is None, reason="marisa-trie is not installed")
def test_marisa_allows_the_same(small_catalog):
    tokens, structures = small_catalog
    trie.check_allowed({**structures, "marisa_trie": MarisaTrie(tokens)}, tokens, seed=0)


def test_marisa_is_asked_only_below_the_second_level(small_catalog, monkeypatch):
    class KeySearch:
        def __init__(self, keys):
            self.all_keys = list(keys)

        def keys(self, prefix):
            assert len(prefix) > 1
            return [key for key in self.all_keys if key.startswith(prefix)]

    package = type(sys)("marisa_trie")
    package.Trie = KeySearch
    monkeypatch.setitem(sys.modules, "marisa_trie", package)
    tokens, structures = small_catalog
    trie.check_allowed({**structures, "marisa_trie": MarisaTrie(tokens)}, tokens, seed=0)


def test_a_trie_that_allows_something_else_is_refused(small_catalog):
    tokens, structures = small_catalog
    other = build_dict_trie(tokens[1:])
    del other[next(iter(other))]
    with pytest.raises(AssertionError, match="different tokens are allowed"):
        trie.check_allowed({**structures, "dict_trie": other}, tokens, seed=0)


def test_steps_select_the_same_whatever_masks_them(small_catalog):
    tokens, structures = small_catalog
    found = structures["item_trie"]
    results = Results(QUICK)
    trie.measure_steps(results, random_config("gamer-tiny", num_levels=3), tokens, "300", structures)
    assert [row["name"] for row in results.rows] == ["dict_trie", "processor", "search"]
    assert set(results.ratios) == {"trie_step/dict_trie@300x20"}
    steps = trie.random_steps(tokens, found.vocab_size, 20, seed=0, device="cpu")
    assert [step.prefixes.shape[1] for step in steps] == [1, 2]
    assert all((found.walk(step.prefixes) >= 0).all() for step in steps)


def test_another_selection_is_refused():
    best = torch.tensor([3.0, 2.0])
    trie.check_best({"a": [best], "b": [best.flip(0)]})
    with pytest.raises(AssertionError, match="select differently"):
        trie.check_best({"a": [best], "b": [best + 0.1]})


def test_the_bytes_of_a_dict_trie_are_those_of_its_parts():
    leaf, large = {}, 1000
    inner = {large: leaf}
    root = {5: inner}
    expected = sys.getsizeof(root) + sys.getsizeof(inner) + sys.getsizeof(leaf) + sys.getsizeof(large)
    assert trie.dict_bytes(root) == expected


def test_building_a_trie_is_compared_and_weighed(small_catalog):
    tokens, _ = small_catalog
    results = Results(QUICK)
    structures = trie.measure_build(results, random_config("gamer-tiny", num_levels=3), tokens, "300")
    assert {"dict_trie", "item_trie"} <= structures.keys()
    assert {"trie_build/dict_trie@300", "trie_bytes/dict_trie@300"} == results.ratios.keys()
    alone = Results(QUICK)
    trie.measure_build(alone, random_config("gamer-tiny", num_levels=3), tokens, "300", baselines=False)
    assert [(row["table"], row["name"]) for row in alone.rows] == [
        ("build@300", "item_trie"),
        ("bytes@300", "item_trie"),
    ]
    assert alone.ratios == {}


@pytest.mark.parametrize("preset", limits.PRESETS)
def test_counted_weights_are_the_models(preset):
    model = random_model(preset, behavior_injection_layers=[])
    config = model.config
    experts = config.tokens_per_item * config.num_hidden_layers * limits.feed_forward_weights(config)
    counted = experts + sum(
        limits.layer_weights(config, layer) - limits.feed_forward_weights(config)
        for layer in range(config.num_hidden_layers)
    )
    weights = {name: weight for name, weight in model.model.layers.named_parameters() if weight.ndim > 1}
    assert counted == sum(weight.numel() for name, weight in weights.items() if "embedding" not in name)


def counted_operations(num_items: int, **fields: object) -> tuple[float, float]:
    """Return what torch counts for whole items of history, and what the arithmetic does."""
    model = random_model("gamer-tiny", **fields)
    model.set_attn_implementation("eager")  # which skips nothing: each token attends to all
    tokens = item_tokens(model.config, random_codes(50, 4))
    input_ids = random_prompts(tokens, 1, num_items)["input_ids"][:, :-1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=input_ids, use_cache=False)
    one = limits.token_cost(model.config, keys=input_ids.shape[1]) + limits.head_cost(model.config)
    return counter.get_total_flops(), input_ids.shape[1] * one.flops


def test_counted_operations_are_those_that_torch_counts():
    found, expected = counted_operations(3, behavior_injection_layers=[])
    assert found == expected


def test_an_injected_behavior_costs_nothing_per_token():
    few, many = (found - expected for found, expected in map(counted_operations, (3, 6)))
    assert few == many > 0


def test_gamer_base_costs_what_the_arithmetic_by_hand_says():
    config = random_config("gamer-base")
    active = sum(limits.layer_weights(config, layer) for layer in range(8))
    assert active == 8 * (294_912 + 393_216) + 4 * (294_912 + 65_536)
    attention = 12 * 4 * 384 * 250.5
    assert limits.training_cost(config, 100).flops == 3 * (2 * active + attention + 2 * 256 * config.vocab_size)


def test_decoding_feeds_the_behavior_and_all_codes_but_the_last():
    config = random_config("gamer-base")
    one = limits.decode_cost(config, history_items=100, num_beams=1).flops
    assert one == pytest.approx(4 * (limits.token_cost(config, 502.5) + limits.head_cost(config)).flops)
    grown = limits.decode_cost(config, 100, num_beams=3).flops - limits.decode_cost(config, 100, num_beams=2).flops
    assert grown == pytest.approx(3 * (limits.token_cost(config, 503) + limits.head_cost(config)).flops)


@pytest.mark.parametrize("cross_level_layers", [[], [1]])
def test_of_a_prompts_last_layer_only_keys_and_values_are_counted(cross_level_layers):
    config = random_config("gamer-tiny", cross_level_layers=cross_level_layers, behavior_injection_layers=[])
    tokens, width = 50, config.hidden_size
    whole = limits.token_cost(config, 25.5).flops
    attention = limits.attention_weights(config)
    layer = 2 * (attention + limits.feed_forward_weights(config)) + limits.attention_flops(config, 25.5)
    keys_and_values = 2 * 2 * width * config.num_key_value_heads * config.head_dim
    cross = 2 * (attention + width**2) + limits.attention_flops(config, 25.5) if cross_level_layers else 0
    last = keys_and_values if not cross_level_layers else layer - 2 * limits.feed_forward_weights(config)
    last += keys_and_values if cross_level_layers else 0
    assert whole == layer * 2 + cross
    assert limits.prefill_cost(config, 10).flops == pytest.approx((layer + last) * tokens)


def test_the_scarcer_of_arithmetic_and_memory_decides():
    peaks = Peaks(flops_per_second=100.0, bytes_per_second=40.0, bytes_per_value=4)
    assert peaks.per_second(Cost(flops=10.0, values=0.1)) == 10.0
    assert peaks.per_second(Cost(flops=10.0, values=5.0)) == 2.0
    assert peaks.per_second(Cost(flops=10.0, values=5.0), share=0.5) == 1.0


def test_the_best_rate_leaves_out_the_first_run(monkeypatch):
    times = iter([0.0, 0.1, 0.0, 2.0, 0.0, 1.0])
    monkeypatch.setattr(limits, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    assert limits.best_rate(lambda: None, work=6.0, device="cpu", repeats=2) == 6.0


def test_limits_rate_every_preset():
    results = limits.measure(QUICK)
    assert {row["table"] for row in results.rows} == {"peaks", *limits.PRESETS}
    rows = {(row["table"], row["name"]): row for row in results.rows}
    rate, peak = rows["gamer-base", "search"], rows["peaks", "float32"]
    assert rate["float32_per_second_at_50%"] == pytest.approx(rate["float32_per_second_at_100%"] / 2)
    assert rate["float32_per_second_at_100%"] <= peak["flops_per_second"] / rate["flops"] * 1.001


def test_points_vary_one_thing_at_a_time():
    chosen = growth.points(growth.Point(), growth.VALUES)
    assert len(chosen) == 1 + 2 + 3 + 3 + 2
    base = vars(chosen.pop("base"))
    for name, point in chosen.items():
        changed = {axis: value for axis, value in vars(point).items() if value != base[axis]}
        assert name == "{}={}".format(*next(iter(changed.items())))
        assert len(changed) == 1


@pytest.fixture(scope="module")
def grown() -> Results:
    original = growth.QUICK_VALUES
    growth.QUICK_VALUES = {"history_items": (2, 10), "beams": (3, 20)}
    try:
        return growth.measure(QUICK)
    finally:
        growth.QUICK_VALUES = original


def test_growth_measures_each_point_and_its_limit(grown):
    tables = {}
    for row in grown.rows:
        tables.setdefault(row["table"], []).append(row["name"])
    assert tables["growth"] == tables["growth limit"] == ["base", "history_items=2", "beams=3"]
    assert tables["growth axis"] == ["history_items", "beams"]


def test_growth_is_drawn_small_enough_to_commit(grown, tmp_path):
    growth.plot(grown, tmp_path / "growth-cpu.json")
    image = (tmp_path / "growth-cpu.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert len(image) < 100_000


def test_without_matplotlib_nothing_is_drawn(grown, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    growth.plot(grown, tmp_path / "growth-cpu.json")
    assert "matplotlib is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_growth_refuses_what_is_no_list_of_items():
    bench = growth.Workbench("gamer-tiny", batch_size=1, settings=QUICK)
    point = growth.Point(history_items=2, beams=3, items=50, levels=3)
    tokens, _ = bench.catalog(point)
    scores = torch.tensor([-1.0, -2.0, -3.0])
    bench.check({"here": (tokens[:3], scores)}, {"here": point})
    with pytest.raises(AssertionError, match="no item"):
        bench.check({"here": (tokens[:3].flip(1), scores)}, {"here": point})
    with pytest.raises(AssertionError, match="twice or is missing"):
        bench.check({"here": (tokens[[0, 1, 1]], scores)}, {"here": point})
    with pytest.raises(AssertionError, match="order of their scores"):
        bench.check({"here": (tokens[:3], scores.flip(0))}, {"here": point})


def test_the_same_catalog_serves_all_its_points():
    bench = growth.Workbench("gamer-tiny", batch_size=1, settings=QUICK)
    few, many = growth.Point(items=50, beams=3), growth.Point(items=50, beams=9)
    assert bench.catalog(few) is bench.catalog(many)
    assert bench.model(few) is bench.model(many)
    assert tuple(bench.model(few).config.behavior_levels) == workload.BEHAVIOR_LEVELS
