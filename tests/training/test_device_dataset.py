import numpy as np
import pytest
import torch

from genrec.data.histories import as_histories
from genrec.item_tokenizers.vocabulary import Vocabulary
from genrec.training.collators import HistoryCollator
from genrec.training.device_dataset import DeviceDataset
from genrec.training.samples import HistoryDataset

VOCABULARY = Vocabulary(num_behaviors=2, codebook_sizes=(3, 3))
ITEM_TOKENS = torch.tensor([[4, 7], [5, 8], [6, 9]])


def random_samples(num_samples: int, has_targets: bool) -> list[dict]:
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(num_samples):
        length = int(generator.integers(1, 9))
        sample = {
            "items": generator.integers(3, size=length),
            "behaviors": generator.integers(2, size=length),
            "sessions": np.sort(generator.integers(4, size=length)),
            "times": np.sort(generator.integers(2**33, size=length)),
        }
        samples.append(sample | ({"num_targets": int(generator.integers(1, 4))} if has_targets else {}))
    return samples


def histories_of(samples: list[dict]) -> HistoryDataset:
    rows = [
        [(int(i), ("view", "buy")[b], int(t)) for i, b, t in zip(s["items"], s["behaviors"], s["times"])]
        for s in samples
    ]
    return HistoryDataset(as_histories(rows, item_ids=[0, 1, 2], ladder="view,buy"))


@pytest.mark.parametrize("has_targets", [False, True])
@pytest.mark.parametrize("options", [{}, {"packing": True}, {"with_times": True, "pad_to_multiple_of": 4}])
@pytest.mark.parametrize("kind", ["list", "arrow"])
def test_rows_on_the_device_become_the_batches_of_the_host(has_targets, options, kind):
    samples = random_samples(30, has_targets)
    dataset = samples
    if kind == "arrow":
        datasets = pytest.importorskip("datasets")
        dataset = datasets.Dataset.from_list(
            [{name: np.asarray(column).tolist() for name, column in sample.items()} for sample in samples]
        ).select(range(1, 30))  # a slice, whose lists begin within their buffer
        samples = samples[1:]
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=5, **options)
    data = DeviceDataset(dataset, collate)
    assert len(data) == len(samples)
    for rows in ([3], [0, 28, 7, 7], list(range(len(samples)))):
        expected = collate([samples[row] for row in rows])
        found = collate(data.__getitems__(rows))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_histories_need_no_loop_over_samples():
    dataset = histories_of(random_samples(20, has_targets=False))
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=5, with_times=True)
    data = DeviceDataset(dataset, collate)
    expected = collate([dataset[row] for row in (4, 11)])
    found = collate(data.__getitems__([4, 11]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    targets = DeviceDataset(HistoryDataset(dataset.histories, num_targets=2), collate)
    assert (collate(targets.__getitems__([4]))["labels"] >= 0).sum() <= 4


def test_no_rows_give_the_batch_of_an_idle_process():
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY)
    data = DeviceDataset(random_samples(3, has_targets=False), collate)
    assert collate(data.__getitems__([]))["input_ids"].shape == (1, 3)


def test_samples_are_checked_once_at_the_start():
    samples = random_samples(3, has_targets=False)
    samples[1]["items"][0] = 3
    with pytest.raises(ValueError, match="names item 3, but the item tokenizer knows items 0 to 2"):
        DeviceDataset(samples, HistoryCollator(ITEM_TOKENS, VOCABULARY))
