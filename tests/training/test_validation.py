import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy

from genrec.data.histories import Queries, as_histories
from genrec.evaluation import evaluate
from genrec.recommender import GenerativeRecommender
from genrec.training.collators import IGNORED, HistoryCollator
from genrec.training.samples import HistoryDataset, sample_lengths
from genrec.training.validation import merged_ndcg, ranking_subset, validation_loss, validation_subset


def queries_with_targets(num_targets: list[int]) -> Queries:
    past = [[(user % 3, "view")] for user in range(len(num_targets))]
    future = [[(0, "view")] * number for number in num_targets]
    return Queries(*(as_histories(lists, item_ids=[0, 1, 2], ladder="view") for lists in (past, future)))


def test_the_loss_is_the_mean_over_tokens_and_not_over_batches(make_model, tokenizer):
    model = make_model().eval()
    lists = [[(0, "view")] * 5, [(3, "buy"), (7, "view")], [(1, "view")]]
    dataset = HistoryDataset(as_histories(lists, item_ids=tokenizer.item_ids, ladder="view,buy"))
    collate = HistoryCollator(tokenizer.item_tokens, tokenizer.vocabulary)
    batches = [collate([dataset[0]]), collate([dataset[1], dataset[2]]), collate([])]
    losses = []
    for sample in dataset:
        batch = collate([sample])
        logits = model(batch["input_ids"], session_ids=batch["session_ids"]).logits[0]
        for position, label in enumerate(batch["labels"][0].tolist()):
            if label != IGNORED:
                losses.append(cross_entropy(logits[position - 1] / 0.7, torch.tensor(label)).item())
    assert len(losses) == 2 * 8
    loss = validation_loss(model, batches, 0.7, Accelerator(cpu=True))
    assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_validation_data_without_labels_are_refused(tokenizer):
    batch = HistoryCollator(tokenizer.item_tokens, tokenizer.vocabulary)([])
    with pytest.raises(ValueError, match="No token of the validation data bears loss"):
        validation_loss(None, [batch], 1.0, Accelerator(cpu=True))


def test_the_ranking_subset_is_drawn_by_the_seed_among_queries_with_targets():
    queries = queries_with_targets([1, 0, 1, 1, 0, 1, 1, 1])
    assert ranking_subset(queries, None, seed=0).histories.users.tolist() == [0, 2, 3, 5, 6, 7]
    drawn = ranking_subset(queries, 3, seed=0).histories.users.tolist()
    assert drawn == ranking_subset(queries, 3, seed=0).histories.users.tolist()
    assert len(set(drawn)) == 3
    assert drawn == sorted(drawn)
    assert {tuple(ranking_subset(queries, 3, seed=seed).histories.users) for seed in range(5)} != {tuple(drawn)}
    assert ranking_subset(None, 3, seed=0) is None


def test_the_ranking_is_the_merged_ndcg_of_an_evaluation(make_model, tokenizer):
    model = make_model().eval()
    past = [[(item, "view"), (item + 1, "buy")] for item in range(10)]
    future = [[(item + 2, "buy"), (item + 3, "view"), (item + 4, "view")] for item in range(10)]
    queries = Queries(
        *(as_histories(lists, item_ids=tokenizer.item_ids, ladder="view,buy") for lists in (past, future))
    )
    recommender = GenerativeRecommender(model, tokenizer, num_beams=16)
    report = evaluate(recommender, queries)
    ndcg = merged_ndcg(recommender, queries, Accelerator(cpu=True))
    assert 0 < ndcg < 1
    assert ndcg == pytest.approx(report.value("ndcg@10"))


def test_the_same_few_samples_validate_each_time():
    dataset = HistoryDataset(as_histories([[(row % 3, "view")] for row in range(9)], item_ids=[0, 1, 2], ladder="view"))
    few = validation_subset(dataset, 4, seed=0)
    items = [sample["items"].tolist() for sample in few]
    assert len(items) == 4
    assert items == [sample["items"].tolist() for sample in validation_subset(dataset, 4, seed=0)]
    assert validation_subset(dataset, 9, seed=0) is dataset
    assert validation_subset(dataset, None, seed=0) is dataset
    assert validation_subset(None, 4, seed=0) is None


def test_a_memory_mapped_dataset_is_selected_from():
    datasets = pytest.importorskip("datasets")
    few = validation_subset(datasets.Dataset.from_dict({"items": [[row] for row in range(9)]}), 3, seed=0)
    assert sample_lengths(few).tolist() == [1, 1, 1]
