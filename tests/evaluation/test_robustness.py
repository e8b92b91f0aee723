"""Perturbed test histories against the rules written user by user, and what is reported of them."""

import numpy as np
import pytest
import torch

from genrec.data.histories import Queries, as_histories
from genrec.data.market import SyntheticMarket
from genrec.data.splits import split_last_session
from genrec.evaluation import compare, evaluate
from genrec.evaluation.benchmark_csv import read_benchmark_csv, update_benchmark_csv
from genrec.evaluation.robustness import (
    as_report,
    drop_lower_behaviors,
    drop_session_items,
    evaluate_robustness,
    perturbations,
)
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.models.discriminative import SASRecConfig, SASRecModel
from genrec.models.encoder_decoder import TigerConfig, TigerForConditionalGeneration
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.recommender import (
    GenerativeRecommender,
    PopularityRecommender,
    RecencyRecommender,
    Seq2SeqRecommender,
    SequentialRecommender,
)

LADDER = "view,like=save,cart,buy"
RATIOS = (0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def split():
    market = SyntheticMarket(num_users=120, num_items=40, num_categories=2, seed=3, ladder=LADDER)
    return split_last_session(market.histories())


def events(history):
    return list(zip(history.items.tolist(), history.behaviors.tolist(), history.times.tolist(), strict=True))


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(any(element == other for other in rest) for element in part)


@pytest.mark.parametrize("ratio", RATIOS)
def test_exactly_the_stated_share_of_each_lower_behavior_goes_and_nothing_of_the_target_behavior(split, ratio):
    queries = split.test
    levels = queries.histories.ladder.levels
    thinned = drop_lower_behaviors(queries, ratio, seed=1)
    assert thinned.targets is queries.targets
    num_thinned = 0
    for before, after in zip(queries.histories, thinned.histories, strict=True):
        counts = np.bincount(before.behaviors, minlength=5).tolist()
        gone = [int(n * ratio // (level + 1)) if level < max(levels) else 0 for n, level in zip(counts, levels)]
        if sum(gone) == len(before):
            gone = [0] * 5  # a history that would lose everything stays whole
        kept = [n - lost for n, lost in zip(counts, gone)]
        assert np.bincount(after.behaviors, minlength=5).tolist() == kept
        assert is_subsequence(events(after), events(before))
        num_thinned += sum(gone) > 0
    assert num_thinned > 0


def test_a_seed_decides_what_goes_and_a_larger_ratio_drops_more_of_the_same(split):
    def kept(ratio, seed):
        return [set(events(history)) for history in drop_lower_behaviors(split.test, ratio, seed).histories]

    assert kept(0.5, seed=0) == kept(0.5, seed=0)
    assert kept(0.5, seed=0) != kept(0.5, seed=1)
    assert all(more <= less for more, less in zip(kept(0.75, seed=0), kept(0.25, seed=0), strict=True))


@pytest.mark.parametrize("keeps_target_behavior", [True, False])
def test_items_of_the_asked_session_leave_the_history(split, keeps_target_behavior):
    queries = split.test
    target = len(queries.histories.ladder.names) - 1
    dropped = drop_session_items(queries, keeps_target_behavior)
    num_kept = 0
    for before, session, after in zip(queries.histories, queries.targets, dropped.histories, strict=True):
        met = set(session.items.tolist())
        stays = [e for e in events(before) if e[0] not in met or (keeps_target_behavior and e[1] == target)]
        assert events(after) == stays
        num_kept += sum(item in met for item, _, _ in stays)
    assert (num_kept > 0) == keeps_target_behavior
    assert len(dropped.histories.items) < len(queries.histories.items)


def test_items_of_the_session_are_matched_by_id_whatever_catalog_they_are_in():
    past = as_histories([[("a", "view"), ("b", "view"), ("c", "view")]], ["a", "b", "c"], "view,buy")
    session = as_histories([[("c", "view"), ("new", "view")]], ["new", "c"], "view,buy")
    assert drop_session_items(Queries(past, session)).histories.items.tolist() == [0, 1]


def test_a_user_loses_only_what_her_own_session_holds():
    past = as_histories([[("a", "view"), ("b", "view")]] * 2, ["a", "b"], "view,buy")
    sessions = as_histories([[("a", "view")], [("b", "view")]], ["a", "b"], "view,buy")
    histories = drop_session_items(Queries(past, sessions)).histories
    assert [history.items.tolist() for history in histories] == [[1], [0]]


def test_perturbations_say_what_share_of_interactions_went(split):
    found = perturbations(split.test, ratios=RATIOS, seed=2)
    assert [each.name for each in found] == ["none", "drop-0.25", "drop-0.5", "drop-0.75", "drop-1", "session-items"]
    whole = len(split.test.histories.items)
    for each in found:
        assert each.dropped == pytest.approx(1 - len(each.queries.histories.items) / whole)
    assert found[0].queries is split.test


def test_every_figure_is_that_of_the_perturbed_queries_beside_the_unperturbed(split):
    rule = RecencyRecommender().fit(split.train)
    settings = {"metrics": ["hit@5", "ndcg@10"], "behaviors": ["view", "buy"], "num_bootstrap": 50}
    rows = evaluate_robustness(rule, split.test, name="recency", ratios=[0.5], seed=4, **settings)
    assert len(rows) == 3 * 2 * 2  # perturbations, behaviors, metrics
    reference = evaluate(rule, split.test, seed=4, **settings)
    thinned = evaluate(rule, drop_lower_behaviors(split.test, 0.5, seed=4), seed=4, **settings)
    for row in rows:
        assert row["model"] == "recency"
        before = reference.value(row["metric"], row["behavior"])
        if row["perturbation"] == "none":
            assert (row["value"], row["change"], row["relative"]) == (before, 0, 0)
        elif row["perturbation"] == "drop-0.5":
            assert row["value"] == thinned.value(row["metric"], row["behavior"])
            assert row["change"] == pytest.approx(row["value"] - before)
            assert row["relative"] == pytest.approx(row["value"] / before - 1)
            paired = compare(thinned, reference, row["metric"], behavior=row["behavior"], num_bootstrap=50, seed=4)
            assert (row["change_low"], row["change_high"]) == (paired.low, paired.high)
            assert row["records"] == paired.records
    assert any(row["change"] < 0 for row in rows)


def test_the_target_behavior_is_asked_unless_others_are_named(split):
    rule = PopularityRecommender().fit(split.train)
    rows = evaluate_robustness(rule, split.test, metrics=["hit@1"], ratios=[1.0], num_bootstrap=10)
    assert {row["behavior"] for row in rows} == {"buy"}
    assert all(row["change"] == 0 for row in rows)  # popularity reads no history


def test_what_rises_from_zero_has_a_change_but_no_relative_one():
    past = as_histories([[("a", "buy"), ("c", "view")]], ["a", "b", "c"], "view,buy")
    session = as_histories([[("a", "buy")]], ["a", "b", "c"], "view,buy")
    rule, queries = RecencyRecommender().fit(past), Queries(past, session)
    rows = evaluate_robustness(rule, queries, k=1, metrics=["hit@1"], ratios=[1.0], num_bootstrap=10)
    found = {row["perturbation"]: (row["value"], row["change"], row["relative"]) for row in rows}
    # Without the view of c, a comes first; the purchase of a stays when the session's items go.
    assert found == {"none": (0, 0, 0), "drop-1": (1, 1, None), "session-items": (0, 0, 0)}


def test_rows_go_into_a_benchmark_file_with_the_perturbation_behind_the_protocol(split, tmp_path):
    rule = RecencyRecommender().fit(split.train)
    rows = evaluate_robustness(rule, split.test, name="recency", metrics=["hit@5"], ratios=[1.0], num_bootstrap=10)
    update_benchmark_csv(tmp_path / "figures.csv", as_report(rows), config="market", commit="c0", seed=0)
    found = {(row["protocol"], row["metric"]): row for row in read_benchmark_csv(tmp_path / "figures.csv")}
    assert set(found) == {
        ("last-session", "hit@5"),
        *((f"last-session/{name}", "hit@5") for name in ("drop-1", "session-items")),
        *((f"last-session/{name}", "hit@5/change") for name in ("drop-1", "session-items")),
    }
    changed = found["last-session/drop-1", "hit@5/change"]
    assert float(changed["value"]) == pytest.approx(rows[1]["change"], rel=1e-5)
    assert float(changed["low"]) <= float(changed["value"]) <= float(changed["high"])
    assert changed["seconds"] != ""


def gamer(tokenizer):
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "head_dim": 8, "behavior_embedding_dim": 4}
    return GenerativeRecommender(GamerForCausalLM(GamerConfig(**shape, **tokenizer.model_config_fields())), tokenizer)


def tiger_mb(tokenizer):
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "behavior_tokens": True}
    config = TigerConfig(**shape, **tokenizer.model_config_fields())
    return Seq2SeqRecommender(TigerForConditionalGeneration(config), tokenizer)


def sasrec(tokenizer):
    num_behaviors = len(tokenizer.ladder.names)
    config = SASRecConfig(num_items=len(tokenizer.item_ids), num_behaviors=num_behaviors, hidden_size=8)
    return SequentialRecommender(SASRecModel(config), tokenizer.item_ids, tokenizer.ladder)


@pytest.mark.parametrize("build", [gamer, tiger_mb, sasrec])
def test_models_of_every_family_answer_users_whose_history_is_all_gone(build):
    torch.manual_seed(0)
    item_ids = [f"item {number}" for number in range(12)]
    past = as_histories([[("item 1", "view")], [("item 2", "view"), ("item 3", "buy")]], item_ids, "view,buy")
    sessions = as_histories([[("item 1", "buy")], [("item 4", "buy")]], item_ids, "view,buy")
    assert drop_session_items(Queries(past, sessions)).histories.lengths.tolist() == [0, 2]
    recommender = build(ChunkedIDTokenizer(chunk_size=4).fit(None, item_ids, "view,buy"))
    rows = evaluate_robustness(recommender, Queries(past, sessions), metrics=["hit@10"], num_bootstrap=10)
    assert [row["records"] for row in rows] == [2] * 6


def test_a_ratio_beyond_one_is_refused(split):
    with pytest.raises(ValueError, match="`ratio` must be between 0 and 1, got 1.5"):
        perturbations(split.test, ratios=[1.5])
