import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.data.splits import split_last_session
from genrec.training.samples import HistoryDataset, sample_lengths


def histories_of(lists):
    return as_histories(lists, item_ids=["a", "b", "c"], ladder="view,buy")


def test_a_dataset_leaves_out_users_without_interactions():
    dataset = HistoryDataset(histories_of([[], [("a", "view"), ("c", "buy")], [], [("b", "view")]]))
    assert [example["items"].tolist() for example in dataset] == [[0, 2], [1]]
    assert dataset[0]["behaviors"].tolist() == [0, 1]
    assert "num_targets" not in dataset[0]
    assert dataset[-1]["items"].tolist() == [1]
    with pytest.raises(IndexError, match="Row 2 of a dataset with 2 samples"):
        dataset[2]


def test_queries_become_one_sample_per_target():
    queries = Queries(
        histories_of([[], [("a", "view"), ("c", "buy")], [("b", "view")]]),
        histories_of([[("b", "buy")], [("a", "buy"), ("b", "view")], []]),
    )
    dataset = HistoryDataset.from_queries(queries)
    assert [example["items"].tolist() for example in dataset] == [[1], [0, 2, 0], [0, 2, 1]]
    assert [example["behaviors"].tolist() for example in dataset] == [[1], [0, 1, 1], [0, 1, 0]]
    assert [example["sessions"].tolist() for example in dataset] == [[0], [0, 1, 2], [0, 1, 2]]
    assert {example["num_targets"] for example in dataset} == {1}


def test_a_target_is_asked_about_when_its_session_began():
    user = [("a", "view", 0), ("a", "view", 9000), ("b", "view", 9060), ("a", "view", 20000)]
    histories = as_histories([user], ["a", "b"], "view,buy")
    dataset = HistoryDataset.from_queries(split_last_session(histories).validation)
    assert [sample["times"].tolist() for sample in dataset] == [[0, 9000], [0, 9060]]
    assert [sample["session_times"].tolist() for sample in dataset] == [[0, 9000]] * 2


def test_queries_without_any_history_become_samples_of_one():
    queries = Queries(histories_of([[], []]), histories_of([[("b", "buy")], [("a", "view")]]))
    assert [example["items"].tolist() for example in HistoryDataset.from_queries(queries)] == [[1], [0]]


def test_lengths_are_read_from_any_map_style_dataset():
    rows = [{"items": [0, 1]}, {"items": []}, {"items": [2, 2, 2]}]
    assert sample_lengths(rows).tolist() == [2, 0, 3]
    assert sample_lengths(HistoryDataset(histories_of([[("a", "view")] * 4]))).tolist() == [4]


def test_lengths_of_an_arrow_dataset_follow_its_selection():
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"items": [[0, 1], [2], [2, 2, 2]], "other": [1, 2, 3]})
    assert sample_lengths(whole).tolist() == [2, 1, 3]
    assert sample_lengths(whole.select([2, 1])).tolist() == [3, 1]
    assert sample_lengths(whole.select([])).dtype == np.int64


def test_num_targets_must_be_positive():
    with pytest.raises(ValueError, match="`num_targets` must be at least 1"):
        HistoryDataset(histories_of([[("a", "view")]]), num_targets=0)
