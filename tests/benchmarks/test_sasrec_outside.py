"""What the comparison with RecTools' SASRec rests on: its split, its counting, its intervals, and matched settings."""

import math
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.quality.rectools_layers import make_like_rectools
from benchmarks.quality.sasrec_outside import (
    ADAM_BETAS,
    METRICS,
    Difference,
    Settings,
    arguments_of,
    config_of,
    difference_of,
    figures_of,
    histories_of,
    interactions_of,
    lists_of,
    main,
    ours,
    read_histories,
    table,
)
from genrec.data.histories import as_histories
from genrec.data.splits import leave_one_out
from genrec.models.discriminative import SASRecModel

COLUMNS = {  # user 7 leaves the order of time, and has two events of one second
    "user_id": [9, 7, 7, 7, 9, 8],
    "item_id": [50, 30, 10, 20, 30, 10],
    "timestamp": [5, 8, 8, 3, 9, 1],
}
SMALL = Settings(width=16, layers=1, length=8, epochs=40, batch_size=16, learning_rate=5e-3, dropout=0.0)


def test_histories_run_by_time_and_keep_the_order_within_a_second():
    histories = histories_of(COLUMNS)
    assert histories.users.tolist() == [7, 8, 9]
    assert histories.item_ids.tolist() == [10, 20, 30, 50]
    assert histories.item_ids[histories.items].tolist() == [20, 30, 10, 10, 50, 30]
    assert not histories.behaviors.any()


def test_the_split_asks_for_the_last_interaction_and_trains_on_all_before_it():
    queries = leave_one_out(histories_of(COLUMNS))
    names = queries.histories.item_ids
    assert queries.histories.users.tolist() == [7, 9]  # user 8 has nothing before its last
    assert names[queries.histories.items].tolist() == [20, 30, 50]
    assert names[queries.targets.items].tolist() == [10, 30]


def test_the_other_library_gets_the_same_order():
    columns = interactions_of(histories_of(COLUMNS))
    seconds = columns["datetime"].astype("datetime64[s]").astype(int)
    assert columns["user_id"].tolist() == [0, 0, 0, 1, 2, 2]
    assert seconds.tolist() == [0, 1, 2, 0, 0, 1]
    assert columns["weight"].tolist() == [1.0] * 6


def test_a_log_folder_gives_what_its_columns_give(tmp_path):
    pq.write_table(pa.table({**COLUMNS, "behavior": ["view", "buy"] * 3}), tmp_path / "interactions.parquet")
    read, made = read_histories(tmp_path), histories_of(COLUMNS)
    assert read.items.tolist() == made.items.tolist()
    assert read.ladder.names == made.ladder.names  # one behavior, whatever the log's


def test_a_folder_without_a_log_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no `interactions\.parquet`"):
        main([str(tmp_path)])
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), tmp_path / "interactions.parquet")
    with pytest.raises(ValueError, match="`timestamp` is missing"):
        main([str(tmp_path)])


@pytest.mark.parametrize("option", ["--seeds", "--epochs"])
def test_nothing_to_run_is_refused(tmp_path, option):
    with pytest.raises(ValueError, match=f"`{option}` must be at least 1, got 0"):
        main([str(tmp_path), option, "0"])


def test_figures_are_those_of_the_target_s_rank():
    """Ranks 1, 3, 10 and none, of four users."""
    lists = np.arange(10)[None].repeat(4, axis=0)
    figures = figures_of(lists, np.array([0, 2, 9, 77]))
    assert figures == pytest.approx(
        {
            "hr@1": 1 / 4,
            "hr@5": 2 / 4,
            "hr@10": 3 / 4,
            "ndcg@10": (1 + 1 / math.log2(4) + 1 / math.log2(11)) / 4,
            "mrr@10": (1 + 1 / 3 + 1 / 10) / 4,
        }
    )


def test_a_short_list_hits_nothing_where_it_ends():
    lists = lists_of([0, 0, 2], [4, 6, 5], [2, 1, 1], count=3)
    assert lists[:, :3].tolist() == [[6, 4, -1], [-1, -1, -1], [5, -1, -1]]
    assert figures_of(lists, np.array([4, 4, 5]))["mrr@10"] == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_the_difference_has_welch_s_interval():
    """Variances 1 and 1 of three seeds each: standard error sqrt(2/3), four degrees of freedom, t = 2.776."""
    found = difference_of([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    half = 2.776 * math.sqrt(2 / 3)
    assert found == pytest.approx((-1.0, -1.0 - half, -1.0 + half))
    assert found.is_noise
    assert not difference_of([10.0, 10.1, 10.2], [1.0, 2.0, 3.0]).is_noise


def test_the_steadier_side_adds_no_degrees_of_freedom():
    """Only the second side varies: its two degrees of freedom are all, t = 4.303, standard error sqrt(1/3)."""
    found = difference_of([5.0, 5.0, 5.0], [1.0, 2.0, 3.0])
    assert found.high == pytest.approx(3 + 4.303 * math.sqrt(1 / 3))


def test_an_interval_needs_two_seeds():
    assert difference_of([0.5], [0.25]) == Difference(0.25, None, None)
    assert difference_of([0.5], [0.25]).is_noise is None
    assert difference_of([0.5, 0.5], [0.5, 0.5]) == Difference(0.0, 0.0, 0.0)


def test_the_table_tells_noise_from_difference():
    low, high = [dict.fromkeys(METRICS, value) for value in (0.1, 0.3)], [dict.fromkeys(METRICS, 9.0)] * 2
    assert " yes |" in table({"genrec": low, "rectools": low}).splitlines()[2]
    assert " no |" in table({"genrec": low, "rectools": high}).splitlines()[2]
    assert table({"genrec": low}).splitlines()[2] == "| hr@1 | 0.2000 (0.1414) |"


def test_settings_reach_model_and_training(tmp_path):
    settings = Settings(width=24, layers=3, heads=4, dropout=0.3, length=7, epochs=5, batch_size=9, learning_rate=0.02)
    config, args = config_of(settings, num_items=11), arguments_of(settings, 6, str(tmp_path))
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (24, 24, 3)
    assert (config.num_attention_heads, config.max_history_items, config.num_items) == (4, 7, 11)
    assert config.dropout == config.attention_dropout == 0.3
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.learning_rate, args.seed) == (5, 9, 0.02, 6)
    assert (args.weight_decay, args.max_grad_norm, args.adam_beta1, args.adam_beta2) == (0, 0, *ADAM_BETAS)


def test_xavier_redraws_the_matrices_alone():
    model = SASRecModel(config_of(Settings(), num_items=999))
    vectors = {name: value.clone() for name, value in model.named_parameters() if value.dim() == 1}
    make_like_rectools(model, ("weights",))
    assert float(model.item_embeddings.weight.detach().std()) == pytest.approx(math.sqrt(2 / (1000 + 64)), rel=0.05)
    assert all(torch.equal(vectors[name], value) for name, value in model.named_parameters() if value.dim() == 1)


@torch.no_grad()
def test_rectools_layers_are_the_released_equations():
    """A second implementation on torch's own attention, which norms the queries alone."""
    model = SASRecModel(config_of(Settings(width=16, layers=1, heads=2), num_items=9))
    make_like_rectools(model, ("weights", "layers"))
    layer, states = model.eval().encoder.layers[0], torch.randn(3, 5, 16)
    attention = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    attention.in_proj_weight.copy_(layer.in_proj.weight)
    attention.in_proj_bias.copy_(layer.in_proj.bias)
    attention.out_proj.load_state_dict(layer.out_proj.state_dict())
    queries = layer.attention_norm(states)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    inner = layer.feed_forward_norm(queries + attention(queries, states, states, attn_mask=hidden)[0])
    expected = inner + layer.down_proj(layer.up_proj(inner).relu())
    torch.testing.assert_close(layer(states, ~hidden[None, None]), expected)


def test_other_layers_keep_the_weights():
    model = SASRecModel(config_of(Settings(), num_items=9))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_like_rectools(model, ("layers",))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_ours_learns_what_comes_next_and_recommends_nothing_seen():
    """On a ring of 20 items, each user walks on by one."""
    walks = [[((start + step) % 20, "any") for step in range(9)] for start in range(20)] * 4
    queries = leave_one_out(as_histories(walks, list(range(20)), "any"))
    lists = ours(queries, SMALL, seed=0)
    held = [set(row) for row in queries.histories.items.reshape(80, 8).tolist()]
    assert not any(seen & set(row) for seen, row in zip(held, lists.tolist(), strict=True))
    assert figures_of(lists, queries.targets.items)["hr@1"] > 0.9
    untrained = ours(queries, replace(SMALL, epochs=1, learning_rate=1e-9), seed=0)
    assert figures_of(untrained, queries.targets.items)["hr@1"] < 0.5


def test_a_missing_library_is_named_only_when_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rectools", None)
    pq.write_table(pa.table({name: values * 2 for name, values in COLUMNS.items()}), tmp_path / "interactions.parquet")
    with pytest.raises(ImportError, match=r"pip install 'rectools\[torch\]'"):
        main([str(tmp_path), "--quick", "--other"])
    assert set(main([str(tmp_path), "--quick"])) == {"genrec"}
    assert "| hr@10 |" in capsys.readouterr().out
