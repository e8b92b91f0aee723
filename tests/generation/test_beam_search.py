"""The fast search against brute force over every item, and against `generate` with the logits processor."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from genrec.generation.beam_search import constrained_beam_search
from genrec.generation.logits_processor import TrieConstrainedLogitsProcessor
from genrec.generation.selection import top_in_order
from genrec.generation.trie import ItemTrie

from .search_oracle import (
    PLAIN,
    VARIANTS,
    assert_same,
    brute_force,
    generate,
    item_log_probabilities,
    random_catalog,
    random_prompts,
    read,
    tiny_model,
)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("width", [1, 3, 20, 130])
def test_the_search_equals_brute_force_over_every_item(variant: str, width: int):
    model = tiny_model(**VARIANTS[variant])
    catalog = random_catalog(60)
    prompts = random_prompts(catalog, [3, 0, 7, 1])
    trie = ItemTrie(catalog, model.config.vocab_size)
    fast = constrained_beam_search(model, **prompts, trie=trie, num_beams=width, num_return_sequences=width)
    for row, found in enumerate(read(fast, width)):
        log_probabilities = item_log_probabilities(model, prompts, catalog, row)
        assert_same(found, brute_force(log_probabilities, catalog, width))


@pytest.mark.parametrize("variant", VARIANTS)
def test_generate_with_the_processor_equals_brute_force(variant: str):
    model = tiny_model(seed=1, **VARIANTS[variant])
    catalog = random_catalog(30, seed=1)
    prompts = random_prompts(catalog, [2, 5], seed=1)
    trie = ItemTrie(catalog, model.config.vocab_size)
    for width in (4, 40):
        for row, found in enumerate(read(generate(model, prompts, width, trie), width)):
            log_probabilities = item_log_probabilities(model, prompts, catalog, row)
            assert_same(found, brute_force(log_probabilities, catalog, width))


@pytest.mark.parametrize("seed", range(4))
def test_random_catalogs_and_filters_agree_on_all_paths(seed: int):
    model = tiny_model(seed, session_wise=bool(seed % 2))
    catalog = random_catalog([1, 4, 25, 120][seed], seed)
    prompts = random_prompts(catalog, [4, 1, 2], seed)
    trie = ItemTrie(catalog, model.config.vocab_size)
    allowed = torch.rand(3, len(catalog), generator=torch.Generator().manual_seed(seed)) < 0.5
    allowed[2] = False
    for width in (2, 8):
        fast = constrained_beam_search(
            model, **prompts, trie=trie, allowed_items=allowed, num_beams=width, num_return_sequences=width
        )
        slow = generate(model, prompts, width, trie, allowed_items=allowed)
        for row, (found, by_generate) in enumerate(zip(read(fast, width), read(slow, width))):
            items = catalog[allowed[row]]
            expected = brute_force(item_log_probabilities(model, prompts, catalog, row)[allowed[row]], items, width)
            assert_same(found, expected)
            assert_same(by_generate, expected)


def test_a_mask_for_all_users_filters_each():
    model, catalog = tiny_model(), random_catalog(40)
    prompts = random_prompts(catalog, [2, 2])
    trie = ItemTrie(catalog, model.config.vocab_size)
    allowed = torch.arange(40) < 3
    found = constrained_beam_search(
        model, **prompts, trie=trie, allowed_items=allowed, num_beams=10, num_return_sequences=10
    )
    expected = {tuple(item) for item in catalog[:3].tolist()}
    assert [set(row) for row in read(found, 10)] == [expected, expected]


def test_padding_and_company_change_nothing():
    model, catalog = tiny_model(session_wise=True), random_catalog(50)
    prompts = random_prompts(catalog, [1, 6, 3])
    trie = ItemTrie(catalog, model.config.vocab_size)
    together = constrained_beam_search(model, **prompts, trie=trie, num_beams=5, num_return_sequences=5)
    for row, length in enumerate([1, 6, 3]):
        alone = {name: part[row : row + 1, -4 * length - 1 :] for name, part in prompts.items()}
        own = constrained_beam_search(model, **alone, trie=trie, num_beams=5, num_return_sequences=5)
        assert_same(read(together, 5)[row], read(own, 5)[0])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(implementation: str):
    model, catalog = tiny_model(session_wise=False), random_catalog(50)
    model.set_attn_implementation(implementation)
    prompts = random_prompts(catalog, [1, 6, 3])
    trie = ItemTrie(catalog, model.config.vocab_size)
    found = constrained_beam_search(model, **prompts, trie=trie, num_beams=4, num_return_sequences=4)
    for row, items in enumerate(read(found, 4)):
        assert_same(items, brute_force(item_log_probabilities(model, prompts, catalog, row), catalog, 4))


def test_generate_takes_it_as_its_own_search():
    model, catalog = tiny_model(session_wise=True), random_catalog(50)
    prompts = random_prompts(catalog, [2, 4])
    trie = ItemTrie(catalog, model.config.vocab_size)
    direct = constrained_beam_search(model, **prompts, trie=trie, num_beams=6, num_return_sequences=3)
    settings = {"custom_generate": constrained_beam_search, "trie": trie, "num_beams": 6, "num_return_sequences": 3}
    through = model.generate(**prompts, **settings, return_dict_in_generate=True, output_scores=True)
    assert through.sequences.equal(direct.sequences)
    assert through.sequences_scores.equal(direct.sequences_scores)
    assert model.generate(**prompts, **settings).equal(direct.sequences)
    without_mask = {name: prompts[name] for name in ("input_ids", "session_ids")}
    assert model.generate(**without_mask, **settings).equal(direct.sequences)
    again = constrained_beam_search(model, **without_mask, trie=trie, num_beams=6, num_return_sequences=3)
    assert again.sequences.equal(direct.sequences)
    only_two = torch.arange(50) < 2
    few = model.generate(**prompts, **settings, allowed_items=only_two, return_dict_in_generate=True)
    assert [len(row) for row in read(few, 3)] == [2, 2]
    of_each = torch.stack([only_two, ~only_two])
    filtered = model.generate(**prompts, **settings, allowed_items=of_each, return_dict_in_generate=True)
    expected = constrained_beam_search(
        model, **prompts, trie=trie, num_beams=6, num_return_sequences=3, allowed_items=of_each
    )
    assert filtered.sequences.equal(expected.sequences)
    assert filtered.sequences_scores.equal(expected.sequences_scores)


def test_the_plain_block_searches_as_qwen3_generates():
    model, catalog = tiny_model(**PLAIN), random_catalog(50)
    shape = {name: getattr(model.config, name) for name in ("hidden_size", "intermediate_size", "head_dim")}
    qwen = Qwen3ForCausalLM(
        Qwen3Config(
            **shape,
            vocab_size=model.config.vocab_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            rope_parameters=model.config.rope_parameters,
            pad_token_id=0,
        )
    ).eval()
    qwen.load_state_dict(model.state_dict())
    prompts = random_prompts(catalog, [2, 4])
    trie = ItemTrie(catalog, model.config.vocab_size)
    found = constrained_beam_search(model, **prompts, trie=trie, num_beams=5, num_return_sequences=5)
    by_qwen = qwen.generate(
        input_ids=prompts["input_ids"],
        attention_mask=prompts["attention_mask"],
        num_beams=5,
        num_return_sequences=5,
        max_new_tokens=3,
        length_penalty=0.0,
        logits_processor=[TrieConstrainedLogitsProcessor(trie)],
        return_dict_in_generate=True,
        output_scores=True,
    )
    for row, expected in zip(read(found, 5), read(by_qwen, 5)):
        assert_same(row, expected)


def test_the_prompt_is_computed_once_and_its_last_layer_not_at_all():
    model, catalog = tiny_model(), random_catalog(50)
    prompts = random_prompts(catalog, [5, 5])
    shapes: dict[int, list[tuple[int, ...]]] = {0: [], 1: []}
    for number, layer in enumerate(model.model.layers):
        norm = layer.post_attention_layernorm
        norm.register_forward_hook(lambda module, args, output, number=number: shapes[number].append(args[0].shape[:2]))
    constrained_beam_search(model, **prompts, trie=ItemTrie(catalog, model.config.vocab_size), num_beams=7)
    steps = [(2, 1), (2, 5), (2, 7)]  # five codes at the first level are all there is to continue
    assert shapes == {0: [(2, 20), *steps], 1: steps}


def test_ties_go_to_the_lower_code():
    model, catalog = tiny_model(), random_catalog(90)
    model.model.norm.weight.data.zero_()  # every token is as likely as any other
    prompts = random_prompts(catalog, [2, 0])
    trie = ItemTrie(catalog, model.config.vocab_size)
    found = constrained_beam_search(model, **prompts, trie=trie, num_beams=4, num_return_sequences=4)
    first_codes = sorted(catalog[:, 0].unique().tolist())[:4]
    pairs = sorted({tuple(row[:2]) for row in catalog.tolist() if row[0] in first_codes})[:4]
    expected = sorted(tuple(row) for row in catalog.tolist() if tuple(row[:2]) in pairs)[:4]
    assert [list(row) for row in read(found, 4)] == [expected, expected]


def test_top_in_order_sorts_like_python():
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([-torch.inf, -3.5, -1.0, -0.0, 0.0, 1e-30, 2.0])
    scores = values[torch.randint(len(values), (50, 12), generator=generator)]
    for row, chosen in zip(scores.tolist(), top_in_order(scores, 5).tolist()):
        expected = sorted(range(12), key=lambda column: (-row[column], column))[:5]
        assert chosen == sorted(expected)


def test_a_history_longer_than_the_model_reads_is_refused():
    model, catalog = tiny_model(max_history_items=4), random_catalog(20)
    trie = ItemTrie(catalog, model.config.vocab_size)
    found = constrained_beam_search(model, **random_prompts(catalog, [4, 1]), trie=trie)
    assert found.sequences_scores.isfinite().all()
    with pytest.raises(ValueError, match="has 5 items but the model reads 4 .*Pass `max_history_items`"):
        constrained_beam_search(model, **random_prompts(catalog, [1, 5]), trie=trie)


def test_a_beam_wider_than_the_catalog_gives_the_catalog():
    model, catalog = tiny_model(), random_catalog(3)
    prompts, trie = random_prompts(catalog, [2, 0]), ItemTrie(catalog, model.config.vocab_size)
    output = constrained_beam_search(model, **prompts, trie=trie, num_beams=9, num_return_sequences=9)
    assert [set(row) for row in read(output, 9)] == [{tuple(item) for item in catalog.tolist()}] * 2
    assert output.sequences_scores.isneginf().unflatten(0, (2, 9)).sum(dim=1).tolist() == [6, 6]
    assert output.sequences.unflatten(0, (2, 9))[:, 3:, -3:].eq(0).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_filter_that_forbids_everything_gives_nothing(rows: int):
    model, catalog = tiny_model(), random_catalog(20)
    prompts, trie = random_prompts(catalog, [2, 0]), ItemTrie(catalog, model.config.vocab_size)
    allowed = torch.zeros((20,) if rows == 1 else (2, 20), dtype=torch.bool)
    output = constrained_beam_search(
        model, **prompts, trie=trie, allowed_items=allowed, num_beams=4, num_return_sequences=4
    )
    assert read(output, 4) == [{}, {}]
    assert output.sequences[:, -3:].eq(0).all()


def test_session_wise_models_need_sessions():
    model, catalog = tiny_model(session_wise=True), random_catalog(20)
    prompts = random_prompts(catalog, [2])
    del prompts["session_ids"]
    with pytest.raises(ValueError, match="A session-wise model needs `session_ids`"):
        constrained_beam_search(model, **prompts, trie=ItemTrie(catalog, model.config.vocab_size))


def test_bad_input_is_refused():
    model, catalog = tiny_model(), random_catalog(20)
    prompts = random_prompts(catalog, [2, 1])
    trie = ItemTrie(catalog, model.config.vocab_size)
    search = {"model": model, **prompts, "trie": trie, "num_beams": 4}
    with pytest.raises(ValueError, match="from 1 to `num_beams`, got 5 for 4 beams"):
        constrained_beam_search(**search, num_return_sequences=5)
    with pytest.raises(ValueError, match="from 1 to `num_beams`, got 1 for 0 beams"):
        constrained_beam_search(**{**search, "num_beams": 0})
    with pytest.raises(ValueError, match="would ignore the logits processors"):
        constrained_beam_search(**search, logits_processor=[TrieConstrainedLogitsProcessor(trie)])
    with pytest.raises(ValueError, match="has 3 rows for 2 prompts and 2 lists"):
        constrained_beam_search(**search, allowed_items=torch.ones(3, 20, dtype=torch.bool))
    with pytest.raises(ValueError, match="does not sample"):
        model.generate(**prompts, custom_generate=constrained_beam_search, trie=trie, do_sample=True, top_k=None)
    model.train()
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        constrained_beam_search(**search)


@pytest.mark.parametrize(
    ("tokens", "vocab_size"),
    [
        ([[6, 11, 15]], 22),  # another vocabulary
        ([[6, 11]], 21),  # fewer levels
        ([[6, 11, 15, 20]], 21),  # more levels
        ([[6, 15, 11]], 21),  # levels in another order
        ([[5, 11, 15]], 21),  # a behavior token as code
    ],
)
def test_a_trie_of_another_tokenizer_is_refused(tokens: list[list[int]], vocab_size: int):
    model, catalog = tiny_model(), random_catalog(20)
    trie = ItemTrie(torch.tensor(tokens), vocab_size)
    with pytest.raises(ValueError, match=r"Use the trie of the item tokenizer that the model was trained with"):
        constrained_beam_search(model, **random_prompts(catalog, [2]), trie=trie)


@pytest.mark.parametrize(
    ("prompt", "mask"),
    [
        ([6, 11, 15, 2], [1, 1, 1, 1]),  # an item without behavior
        ([2, 6, 11, 15], [1, 1, 1, 1]),  # no behavior asked for
        ([0, 2, 6, 11, 15, 2, 0], [0, 1, 1, 1, 1, 1, 0]),  # padding on the right
        ([2, 0, 0, 0, 0, 2], [1, 0, 0, 0, 0, 1]),  # padding inside
        ([2, 6, 11, 15, 1], [1, 1, 1, 1, 1]),  # asks for a mask token
        ([2, 6, 15, 11, 2], [1, 1, 1, 1, 1]),  # levels in another order
    ],
)
def test_a_prompt_of_another_form_is_refused(prompt: list[int], mask: list[int]):
    model, catalog = tiny_model(), random_catalog(20)
    trie = ItemTrie(catalog, model.config.vocab_size)
    with pytest.raises(ValueError, match="padding on the left, whole items of one behavior token and 3 codes"):
        constrained_beam_search(model, torch.tensor([prompt]), attention_mask=torch.tensor([mask]), trie=trie)


def test_another_model_is_sent_to_the_processor():
    config = Qwen3Config(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=21)
    trie = ItemTrie(random_catalog(5), 21)
    with pytest.raises(ValueError, match=r"the model is 'qwen3'. Use `generate` with `TrieConstrainedLogitsProcessor`"):
        constrained_beam_search(Qwen3ForCausalLM(config).eval(), torch.tensor([[2]]), trie=trie)
