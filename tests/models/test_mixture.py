"""The mixture heads: against a second implementation in loops, by hand, and as the paper's model when they are off."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from transformers import DynamicCache

from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.models.gamer.item_history import ItemQueries, read_item_history
from genrec.models.gamer.mixture import MixtureHead
from genrec.models.gamer.pointers import as_candidates
from genrec.models.gamer.prefix_mixture import NOTHING, Components, gates_at, log_likelihoods, mix, no_prefix

from .mixture_oracle import (
    HEADS,
    ITEMS,
    NEIGHBOR_FEATURES,
    OFFSETS,
    SIZES,
    TINY,
    Request,
    candidates_of,
    conditionals,
    inputs_for,
    left_padded,
    prompt_of,
    random_requests,
    tiny_model,
)

each_head = pytest.mark.parametrize("heads", HEADS)
each_mixture = pytest.mark.parametrize("mixture", ["item", "level"])
each_mask = pytest.mark.parametrize("session_wise", [False, True])
each_softmax = pytest.mark.parametrize("softmax", ["full", "level"])


def with_every_item(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return each prompt once with every item written behind it."""
    rows = {name: part.repeat_interleave(len(ITEMS), dim=0) for name, part in batch.items()}
    for name in ("session_ids", "event_times", "attention_mask"):
        rows[name] = torch.cat([rows[name], rows[name][:, -1:].expand(-1, 3)], dim=1)
    written = torch.tensor(ITEMS).repeat(len(batch["input_ids"]), 1)
    return {**rows, "input_ids": torch.cat([rows["input_ids"], written], dim=1)}


def training_requests(config: GamerConfig, whole: Request) -> list[Request]:
    """Return what each item of a history is asked as: after earlier sessions, or after all items before it."""
    requests = []
    for place, session in enumerate(whole.sessions):
        known = [other for other in range(place) if not config.session_wise or whole.sessions[other] < session]
        first = whole.sessions.index(session) if config.session_wise else place
        others = random_requests([0, 0, 0], seed=place)[2]
        requests.append(
            replace(
                whole,
                items=[whole.items[other] for other in known],
                behaviors=[whole.behaviors[other] for other in known],
                sessions=[whole.sessions[other] for other in known],
                times=[whole.times[other] for other in known],
                asked=whole.behaviors[place],
                session=session,
                time=whole.times[first],
                trend=others.trend if place != 1 else [],
                neighbors=others.neighbors if place != 1 else [],
            )
        )
    return requests


def training_batch(config: GamerConfig, histories: list[Request]) -> tuple[dict[str, Tensor], list[list[Request]]]:
    """Return right-padded rows in which every item bears loss, and what each item is asked as."""
    width = 4 * max(len(history.items) for history in histories)
    prompts = [{name: part[:, :-1] for name, part in prompt_of(history).items()} for history in histories]
    batch = {
        name: torch.cat([pad(prompt[name], (0, width - prompt[name].shape[1])) for prompt in prompts])
        for name in prompts[0]
    }
    batch["attention_mask"] = (batch["input_ids"] > 0).long()
    batch["labels"] = torch.where(batch["input_ids"] >= OFFSETS[0], batch["input_ids"], -100)
    requests = [training_requests(config, history) for history in histories]
    candidates = candidates_of([request for row in requests for request in row])
    return inputs_for(config, {**batch, **candidates}), requests


def expected_log_likelihoods(
    model: GamerForCausalLM, histories: list[Request], requests: list[list[Request]]
) -> Tensor:
    """Return what the oracle gives each code of each item `[items, levels]`."""
    return torch.tensor(
        [
            conditionals(model, request)[item]
            for history, row in zip(histories, requests, strict=True)
            for item, request in zip(history.items, row, strict=True)
        ]
    ).log()


@each_head
@each_mixture
@each_mask
@each_softmax
@torch.no_grad()
def test_logits_are_the_logs_of_the_mixture(heads: str, mixture: str, session_wise: bool, softmax: str):
    model = tiny_model(**HEADS[heads], mixture=mixture, session_wise=session_wise, softmax=softmax)
    requests = random_requests([4, 0, 7, 1])
    batch = inputs_for(model.config, left_padded(requests))
    logits = model(**with_every_item(batch)).logits[:, -4:-1]
    expected = torch.tensor([[conditionals(model, request)[item] for item in ITEMS] for request in requests])
    found = logits.unflatten(0, (4, 18)).gather(3, torch.tensor(ITEMS).expand(4, 18, 3)[..., None])[..., 0]
    torch.testing.assert_close(found, expected.log(), atol=2e-5, rtol=0)
    torch.testing.assert_close(logits.exp().sum(dim=2), torch.ones(72, 3))
    if softmax == "level":  # nothing leaks to other levels, so all items share one unit of probability
        torch.testing.assert_close(found.sum(dim=2).exp().sum(dim=1), torch.ones(4))
    first = model(**batch).logits[:, -1]
    torch.testing.assert_close(first, logits[::18, 0], atol=2e-5, rtol=0)


@each_head
@each_mixture
@each_mask
@each_softmax
@torch.no_grad()
def test_the_loss_asks_every_item_as_inference_would(heads: str, mixture: str, session_wise: bool, softmax: str):
    """The oracle is shown earlier sessions alone: so nothing of an item's own session reaches its loss."""
    model = tiny_model(1, **HEADS[heads], mixture=mixture, session_wise=session_wise, softmax=softmax)
    histories = random_requests([5, 1, 3], seed=3)
    batch, requests = training_batch(model.config, histories)
    expected = expected_log_likelihoods(model, histories, requests)
    torch.testing.assert_close(model(**batch).loss, -expected.mean(), atol=2e-5, rtol=0)
    by_number = model(**batch, num_items_in_batch=torch.tensor(9.0)).loss
    torch.testing.assert_close(by_number, -expected.sum() / 9, atol=1e-4, rtol=0)


@torch.no_grad()
def test_only_labelled_items_bear_loss():
    model = tiny_model(copy_head=True)
    histories = random_requests([5, 3], seed=3)
    batch, requests = training_batch(model.config, histories)
    expected = expected_log_likelihoods(model, histories, requests)[[4, 7]]
    batch["labels"][0, :16] = batch["labels"][1, :8] = -100
    torch.testing.assert_close(model(**batch).loss, -expected.mean(), atol=2e-5, rtol=0)
    batch["labels"] = batch["labels"][:, 8:]
    torch.testing.assert_close(model(**batch, logits_to_keep=12).loss, -expected.mean(), atol=2e-5, rtol=0)


@torch.no_grad()
def test_the_softmax_may_bear_a_loss_of_its_own():
    model = tiny_model(copy_head=True)
    batch, _ = training_batch(model.config, random_requests([5, 3], seed=3))
    mixed = model(**batch).loss
    model.config.softmax_loss_weight = 0.5
    both = model(**batch).loss
    paper = paper_model(model)
    torch.testing.assert_close(both - mixed, 0.5 * paper(**batch).loss)


@torch.no_grad()
def test_each_behavior_of_a_session_may_count_once():
    model = tiny_model(copy_head=True, session_wise=True)
    history = Request(ITEMS[:4], [0, 0, 1, 2], [1, 1, 1, 2], [5, 6, 7, 90], 0, 3, 200)
    batch, requests = training_batch(model.config, [history])
    of_items = -expected_log_likelihoods(model, [history], requests).mean(dim=1)
    model.config.loss_unit = "query"
    # Three records: the two views weigh half each; four items share a weight of four.
    expected = (0.5 * of_items[0] + 0.5 * of_items[1] + of_items[2] + of_items[3]) / 3
    torch.testing.assert_close(model(**batch).loss, expected)


@torch.no_grad()
def test_the_temperature_is_the_softmaxs():
    model = tiny_model(copy_head=True)
    close_gate(model)
    batch, _ = training_batch(model.config, random_requests([5, 3], seed=3))
    logits = paper_model(model)(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1) / 0.7, batch["labels"][:, 1:].flatten())
    torch.testing.assert_close(model(**batch, temperature=0.7).loss, expected)


def paper_model(model: GamerForCausalLM) -> GamerForCausalLM:
    """Return the model with the same weights and no heads."""
    off = {"copy_head": False, "trend_head": False, "neighbor_head": False, "time_context": False}
    fields = {**TINY, "session_wise": model.config.session_wise, "softmax": model.config.softmax, **off}
    paper = GamerForCausalLM(GamerConfig(**fields)).eval()
    weights = {name: part for name, part in model.state_dict().items() if is_of_the_paper(name)}
    paper.load_state_dict(weights)  # strict: not a key more, not a key less
    return paper


def is_of_the_paper(name: str) -> bool:
    return not name.startswith("mixture.") and ".time_context." not in name


def close_gate(model: GamerForCausalLM) -> None:
    """Give everything to the softmax."""
    with torch.no_grad():
        model.mixture.gate_proj.weight.zero_()
        model.mixture.gate_proj.bias.copy_(torch.tensor([1e4] + [0.0] * (model.mixture.num_components - 1)))


@each_mask
@each_softmax
@each_mixture
@torch.no_grad()
def test_a_closed_gate_gives_the_papers_model(session_wise: bool, softmax: str, mixture: str):
    heads = {"copy_head": True, "trend_head": True, "neighbor_head": True}
    model = tiny_model(**heads, mixture=mixture, session_wise=session_wise, softmax=softmax)
    paper = paper_model(model)
    batch = left_padded(random_requests([4, 0, 7, 1]))
    plain = {name: part for name, part in batch.items() if not name.startswith(("trend", "neighbor", "event"))}
    earlier, expected = model(**batch).logits, paper(**plain).logits
    assert earlier[:, :-1].equal(expected[:, :-1])  # tokens before the one asked for are the softmax's, bit for bit
    assert not torch.allclose(earlier[:, -1], expected[:, -1].log_softmax(dim=1))
    close_gate(model)
    torch.testing.assert_close(model(**batch).logits[:, -1], expected[:, -1].log_softmax(dim=1))


@torch.no_grad()
def test_heads_that_are_off_add_no_weights_and_change_no_bit():
    torch.manual_seed(0)
    with_head = GamerForCausalLM(GamerConfig(**TINY, copy_head=True, time_context=True)).eval()
    paper = paper_model(with_head)
    assert paper.mixture is None
    assert paper.model.time_context is None
    assert all(map(is_of_the_paper, paper.state_dict()))
    batch = left_padded(random_requests([4, 2]))
    bare = paper(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert paper(**batch).logits.equal(bare)  # what only heads read is ignored


@each_mixture
@each_softmax
def test_no_candidate_leaves_the_softmax_and_finite_gradients(mixture: str, softmax: str):
    heads = {"copy_head": True, "trend_head": True, "neighbor_head": True}
    model = tiny_model(**heads, mixture=mixture, softmax=softmax)
    (request,) = random_requests([0])
    request = replace(request, trend=[], neighbors=[])
    batch = left_padded([request])
    assert batch["trend_tokens"].shape == (1, 0, 3)
    for width in (0, 2):  # no candidates, and two that are none
        for name, num_features in (("trend", 4), ("neighbor", NEIGHBOR_FEATURES)):
            batch[f"{name}_tokens"] = torch.zeros(1, width, 3, dtype=torch.long)
            batch[f"{name}_features"] = torch.full((1, width, num_features), 9.0)
        logits = model(**batch).logits[:, -1]
        expected = paper_model(model)(input_ids=batch["input_ids"]).logits[:, -1].log_softmax(dim=1)
        torch.testing.assert_close(logits, expected)
        codes = {"input_ids": torch.tensor([[2, *ITEMS[3]]]), "labels": torch.tensor([[-100, *ITEMS[3]]])}
        candidates = {name: part for name, part in batch.items() if name.startswith(("trend", "neighbor"))}
        model.zero_grad()
        model(**codes, **candidates).loss.backward()
        assert all(part.grad.isfinite().all() for part in model.parameters() if part.grad is not None)


@each_mixture
def test_gradients_reach_every_pointer_and_the_gate(mixture: str):
    model = tiny_model(**HEADS["all"], mixture=mixture, session_wise=True)
    batch, _ = training_batch(model.config, random_requests([5, 6], seed=3))
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not is_of_the_paper(name):
            assert parameter.grad.abs().max() > 0, name


@each_mixture
def test_a_loss_without_a_labelled_item_is_zero(mixture: str):
    model = tiny_model(**HEADS["all"], mixture=mixture)
    batch, _ = training_batch(model.config, random_requests([5, 6], seed=3))
    batch["labels"].fill_(-100)
    batch |= {name: part[:0] for name, part in batch.items() if name.startswith(("trend", "neighbor"))}
    for unit in ("item", "query", "user"):
        model.config.loss_unit = unit
        loss = model(**batch, num_items_in_batch=torch.tensor(9.0)).loss
        loss.backward()
        assert loss == 0
        assert all(part.grad.eq(0).all() for part in model.parameters() if part.grad is not None)


@torch.no_grad()
def test_nothing_of_its_own_session_changes_an_items_loss():
    """Items, behaviors and later times of the asked session are changed; so are sessions after it."""
    model = tiny_model(**HEADS["all"], session_wise=True)
    history = Request(
        items=[ITEMS[0], ITEMS[5], ITEMS[0], ITEMS[3], ITEMS[5], ITEMS[9]],
        behaviors=[0, 1, 0, 2, 0, 1],
        sessions=[1, 1, 2, 2, 2, 3],
        times=[100, 200, 90_000, 90_100, 90_200, 180_000],
        asked=0,
        session=4,
        time=270_000,
    )
    batch, requests = training_batch(model.config, [history])
    batch["labels"][:, :12] = batch["labels"][:, 16:] = -100  # place 3 alone
    batch |= inputs_for(model.config, candidates_of(requests[0][3:4]))
    loss = model(**batch).loss
    for place, item, behavior, time in ((2, 3, 2, 90_000), (4, 0, 1, 90_999), (5, 3, 2, 999_999)):
        changed = {name: part.clone() for name, part in batch.items()}
        tokens = slice(4 * place, 4 * place + 4)
        changed["input_ids"][0, tokens] = torch.tensor([2 + behavior, *ITEMS[item]])
        changed["event_times"][0, tokens] = time
        torch.testing.assert_close(model(**changed).loss, loss, atol=1e-6, rtol=0)
    earlier = {**batch, "input_ids": batch["input_ids"].clone()}
    earlier["input_ids"][0, :4] = torch.tensor([2, *ITEMS[3]])
    assert abs(model(**earlier).loss - loss) > 1e-3


def by_hand(*, is_by_item: bool) -> Components:
    """Two levels of two codes (4, 5 and 6, 7), a softmax and one pointer at the items (4, 6) and (5, 7).

    The gates are 1/4 and 3/4, the pointer gives its items 0.8 and 0.2.
    """
    return Components(
        gate_logits=torch.tensor([[0.25, 0.75]]).log(),
        log_gates=torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log(),
        log_weights=[torch.tensor([[0.8, 0.2]]).log()],
        codes=[torch.tensor([[[4, 6], [5, 7]]])],
        is_by_item=is_by_item,
    )


# What the softmax says of tokens 0 to 7: of the first code, and of the second.
FIRST = [0.0, 0.0, 0.0, 0.1, 0.6, 0.3, 0.0, 0.0]
SECOND = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5]


def test_one_code_then_the_next_by_hand():
    components = by_hand(is_by_item=True)
    prefixes = no_prefix(components)
    softmax = torch.tensor([[FIRST]]).log()
    mixed = mix(components, gates_at(components, 0), prefixes, softmax, level=0, offset=4, size=2)
    expected = [0, 0, 0, 0.25 * 0.1, 0.25 * 0.6 + 0.75 * 0.8, 0.25 * 0.3 + 0.75 * 0.2, 0, 0]
    torch.testing.assert_close(mixed.exp(), torch.tensor([[expected]]))
    prefixes = prefixes.extended(components, 0, torch.tensor([[4]]), softmax[..., 4])
    softmax = torch.tensor([[SECOND]]).log()
    mixed = mix(components, gates_at(components, 1), prefixes, softmax, level=1, offset=6, size=2)
    # Item (4, 6): softmax 0.6 * 0.5, pointer 0.8. Item (4, 7): softmax alone. Both over P(4).
    of_prefix = 0.25 * 0.6 + 0.75 * 0.8
    expected = [0, 0, 0, 0, 0, 0, (0.25 * 0.6 * 0.5 + 0.75 * 0.8) / of_prefix, 0.25 * 0.6 * 0.5 / of_prefix]
    torch.testing.assert_close(mixed.exp(), torch.tensor([[expected]]))


def test_a_gate_per_level_by_hand():
    components = by_hand(is_by_item=False)
    prefixes = no_prefix(components).extended(components, 0, torch.tensor([[4]]), torch.tensor([[0.6]]).log())
    softmax = torch.tensor([[SECOND]]).log()
    mixed = mix(components, gates_at(components, 1), prefixes, softmax, level=1, offset=6, size=2)
    torch.testing.assert_close(mixed[0, 0, 6:].exp(), torch.tensor([0.5 * 0.5 + 0.5 * 1.0, 0.5 * 0.5]))


@pytest.mark.parametrize("is_by_item", [False, True])
def test_a_pointer_that_lost_its_prefix_has_no_say(is_by_item: bool):
    components = by_hand(is_by_item=is_by_item)._replace(codes=[torch.tensor([[[4, 6], [4, 7]]])])
    prefixes = no_prefix(components).extended(components, 0, torch.tensor([[5]]), torch.tensor([[0.3]]).log())
    softmax = torch.tensor([[SECOND]]).log()
    mixed = mix(components, gates_at(components, 1), prefixes, softmax, level=1, offset=6, size=2)
    assert mixed.exp().equal(softmax.exp())


@pytest.mark.parametrize("is_by_item", [False, True])
def test_log_likelihoods_are_the_mixture_looked_up(is_by_item: bool):
    components = by_hand(is_by_item=is_by_item)
    for item in product((4, 5), (6, 7)):
        prefixes, expected = no_prefix(components), []
        for level, (code, row) in enumerate(zip(item, (FIRST, SECOND), strict=True)):
            softmax, gates = torch.tensor([[row]]).log(), gates_at(components, level)
            mixed = mix(components, gates, prefixes, softmax, level, offset=4 + 2 * level, size=2)
            expected.append(mixed[0, 0, code])
            prefixes = prefixes.extended(components, level, torch.tensor([[code]]), softmax[..., code])
        of_softmax = torch.tensor([[FIRST[item[0]], SECOND[item[1]]]]).log()
        found = log_likelihoods(components, torch.tensor([item]), of_softmax)
        torch.testing.assert_close(found[0], torch.stack(expected))


def test_prefixes_follow_their_beams():
    components = by_hand(is_by_item=True)
    one = no_prefix(components).chosen(torch.tensor([[0, 0]]))
    two = one.extended(components, 0, torch.tensor([[4, 5]]), torch.tensor([[0.6, 0.3]]).log())
    assert two.matches[0].tolist() == [[[True, False], [False, True]]]
    swapped = two.chosen(torch.tensor([[1, 0]]))
    assert swapped.matches[0].tolist() == [[[False, True], [True, False]]]
    torch.testing.assert_close(swapped.log_mass.exp(), torch.tensor([[0.3, 0.6]]))


def test_components_without_candidates_have_no_gate():
    head = MixtureHead(GamerConfig(**TINY, copy_head=True, trend_head=True))
    history = read_item_history(head.config, torch.tensor([[3]]))
    trend = as_candidates(torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(1, 2, 4))
    queries = ItemQueries(torch.tensor([0]), torch.tensor([0]))
    components = head.components(torch.randn(1, 1, 16), history, queries, torch.randn(13, 16), trend)
    assert components.log_gates.tolist() == [[[0.0, NOTHING_AS_FLOAT, NOTHING_AS_FLOAT]]]
    assert all((weights == NOTHING).all() for weights in components.log_weights)


NOTHING_AS_FLOAT = torch.tensor(NOTHING).item()


@torch.no_grad()
def test_logits_to_keep_are_the_last_ones_whatever_is_written():
    model = tiny_model(copy_head=True)
    batch = inputs_for(model.config, left_padded(random_requests([4, 2])))
    for more in range(4):  # from the behavior alone to the whole item
        rows = {name: torch.cat([part, part[:, -1:].expand(-1, more)], dim=1) for name, part in batch.items()}
        rows["input_ids"] = torch.cat([batch["input_ids"], torch.tensor(ITEMS[4:6])[:, :more]], dim=1)
        logits = model(**rows).logits
        assert logits.shape[1] == 17 + more
        for kept in (1, 2, 3, 7):
            torch.testing.assert_close(model(**rows, logits_to_keep=kept).logits, logits[:, -kept:])


@torch.no_grad()
def test_what_follows_a_whole_item_is_the_softmaxs():
    model = tiny_model(copy_head=True)
    input_ids = torch.tensor([[2, *ITEMS[0], 3, *ITEMS[7]]])
    logits, of_softmax = model(input_ids).logits, paper_model(model)(input_ids).logits
    assert logits[:, [0, 1, 2, 3, 7]].equal(of_softmax[:, [0, 1, 2, 3, 7]])
    assert (logits[:, 4:7] != of_softmax[:, 4:7]).any(dim=2).all()


@torch.no_grad()
def test_where_padding_comes_last_nothing_is_mixed():
    model = tiny_model(copy_head=True)
    input_ids = torch.tensor([[2, *ITEMS[0], 0, 0, 0, 0]])
    assert model(input_ids, input_ids > 0).logits.equal(paper_model(model)(input_ids, input_ids > 0).logits)


@each_mixture
@torch.no_grad()
def test_bf16_stays_close(mixture: str):
    model = tiny_model(**HEADS["all"], mixture=mixture, session_wise=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    batch = left_padded(random_requests([4, 0, 7, 1]))
    expected = model(**batch).logits[:, -1, OFFSETS[0] : OFFSETS[1]]
    model.to(torch.bfloat16)
    found = model(**batch).logits[:, -1, OFFSETS[0] : OFFSETS[1]]
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), expected, atol=0.15, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains(dtype: torch.dtype):
    model = tiny_model(**HEADS["all"]).to(dtype)
    batch, _ = training_batch(model.config, random_requests([5, 1], seed=3))
    model(**batch).loss.backward()
    assert all(part.grad.isfinite().all() for part in model.parameters() if part.grad is not None)


@torch.no_grad()
def test_a_saved_model_comes_back_the_same(tmp_path: Path):
    model = tiny_model(**HEADS["all"], mixture="level", session_wise=True, softmax_loss_weight=0.3)
    model.save_pretrained(tmp_path)
    loaded = GamerForCausalLM.from_pretrained(tmp_path)
    batch = left_padded(random_requests([4, 0, 7]))
    assert loaded(**batch).logits.equal(model(**batch).logits)
    assert loaded.config.to_dict() == model.config.to_dict() | {"_name_or_path": loaded.config._name_or_path}
    assert (loaded.config.mixture, loaded.config.softmax_loss_weight) == ("level", 0.3)


@pytest.mark.parametrize("name", ["trend", "neighbor"])
def test_missing_and_wrong_candidates_are_refused(name: str):
    model = tiny_model(**{f"{name}_head": True})
    batch = inputs_for(model.config, left_padded(random_requests([4, 2])))
    with pytest.raises(ValueError, match=f"model with `{name}_head` needs `{name}_tokens` and `{name}_features`"):
        model(**{key: part for key, part in batch.items() if key != f"{name}_features"})
    batch[f"{name}_tokens"] = batch[f"{name}_tokens"].repeat(2, 1, 1)
    with pytest.raises(ValueError, match=f"`{name}_tokens` must have one row per query, 2, got 4"):
        model(**batch)


def test_what_a_mixture_cannot_do_is_refused():
    model = tiny_model(copy_head=True)
    tokens = torch.tensor([[2, *ITEMS[0]]])
    with pytest.raises(ValueError, match="each user needs a row of their own. Leave `segment_ids` out"):
        model(tokens, segment_ids=torch.ones_like(tokens))
    with pytest.raises(ValueError, match="`logits_to_keep` must be a number of last tokens"):
        model(tokens, logits_to_keep=torch.tensor([0]))
    with pytest.raises(ValueError, match="Leave `return_logits` out"):
        model(tokens, labels=tokens, return_logits=True)


@torch.no_grad()
def test_a_filled_cache_needs_to_be_told_the_items():
    model = tiny_model(copy_head=True, cross_level_layers=[], behavior_injection_layers=[])
    prompt, code = torch.tensor([[2, *ITEMS[0], 3]]), torch.tensor([[6]])
    cache, whole = DynamicCache(), torch.cat([prompt, code], dim=1)
    first = model(prompt, past_key_values=cache, use_cache=True).logits
    known = read_item_history(model.config, whole)
    second = model(code, past_key_values=cache, item_history=known).logits
    expected = model(whole).logits
    torch.testing.assert_close(first, expected[:, :-1])
    torch.testing.assert_close(second, expected[:, -1:])
    with pytest.raises(ValueError, match="cannot know the items of cached tokens. Pass `item_history`"):
        model(code, past_key_values=cache)


def test_a_cache_with_too_few_slots_is_refused():
    model = tiny_model(copy_head=True)
    with pytest.raises(ValueError, match="with 5 slots for its attentions, got a DynamicCache that has 2 layers"):
        model(torch.tensor([[2]]), past_key_values=DynamicCache(config=model.config))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixture": "both"}, '`mixture` must be "item" or "level", got \'both\''),
        ({"loss_unit": "session"}, '`loss_unit` must be "item", "query" or "user", got \'session\''),
        ({"trend_windows": []}, r"`trend_windows` must hold at least one number of seconds, got \[\]"),
        ({"trend_windows": [60, 0]}, r"`trend_windows` must hold at least one number of seconds, got \[60, 0\]"),
        ({"softmax_loss_weight": -0.1}, "`softmax_loss_weight` must not be negative, got -0.1"),
        ({"pointer_dim": 0}, "`pointer_dim` must be at least 1, got 0"),
        ({"copy_head": True, "behavior_loss_weight": 1.0}, "`behavior_loss_weight` is the paper model's"),
        ({"copy_heads": True}, "no field `copy_heads`. Did you mean `copy_head`"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        GamerConfig(**{**TINY, **fields})


def test_the_configuration_says_what_candidates_are():
    config = GamerConfig(**{**TINY, "trend_windows": [60, 3600, 86_400]})
    assert (config.num_trend_features, config.num_neighbor_features) == (6, 11)
    assert not config.has_mixture
    assert all(GamerConfig(**TINY, **{name: True}).has_mixture for name in ("copy_head", "trend_head", "neighbor_head"))


def test_pointers_start_with_features_that_count():
    """At the usual initial scale of 0.02 a pointer over a few features would stay flat for many steps."""
    torch.manual_seed(0)
    model = GamerForCausalLM(GamerConfig(**{**TINY, "pointer_dim": 256}, copy_head=True))
    pointer = model.mixture.pointers["copy"]
    num_features = pointer.feature_proj.in_features
    assert pointer.feature_proj.weight.std().item() == pytest.approx(num_features**-0.5, rel=0.1)
    assert pointer.score_proj.weight.std().item() == pytest.approx(1 / math.sqrt(256), rel=0.2)
    assert sum(SIZES) + 5 == model.vocab_size
