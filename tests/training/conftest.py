"""A world with a rule: after item `x` comes item `(5 * x + 3) % 16`, viewed or bought."""

import numpy as np
import pytest
import torch

from genrec.data.histories import Histories, Queries, as_histories
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.samples import HistoryDataset
from genrec.training.trainer import GenRecTrainer

NUM_ITEMS = 16


def planted_histories(num_users: int, seed: int, shortest: int = 2, longest: int = 11) -> Histories:
    generator = np.random.default_rng(seed)
    histories = []
    for _ in range(num_users):
        item, history = int(generator.integers(NUM_ITEMS)), []
        for _ in range(int(generator.integers(shortest, longest + 1))):
            history.append((item, "view" if generator.random() < 0.7 else "buy"))
            item = (5 * item + 3) % NUM_ITEMS
        histories.append(history)
    return as_histories(histories, item_ids=np.arange(NUM_ITEMS), ladder="view,buy")


def queries_of(num_users: int, seed: int) -> Queries:
    """Ask for the last item of each history."""
    whole = planted_histories(num_users, seed)
    is_last = np.zeros(len(whole.items), dtype=bool)
    is_last[whole.offsets[1:] - 1] = True
    return Queries(whole.keep(~is_last), whole.keep(is_last))


@pytest.fixture
def planted_queries() -> Queries:
    return queries_of(30, seed=2)


@pytest.fixture(scope="session")
def tokenizer() -> ChunkedIDTokenizer:
    return ChunkedIDTokenizer(chunk_size=4).fit(None, np.arange(NUM_ITEMS), "view,buy")


@pytest.fixture
def make_model(tokenizer):
    def build(seed: int = 0, **fields) -> GamerForCausalLM:
        torch.manual_seed(seed)
        shape = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "dropout": 0.1,
        }
        return GamerForCausalLM(GamerConfig(**shape | fields, **tokenizer.model_config_fields()))

    return build


@pytest.fixture
def make_args(tmp_path):
    def build(**fields) -> GenRecTrainingArguments:
        settings = {
            "output_dir": str(tmp_path / "run"),
            "selection_metric": "loss",
            "per_device_train_batch_size": 32,
            "num_train_epochs": 2,
            "learning_rate": 5e-3,
            "use_cpu": True,
            "disable_tqdm": True,
        }
        return GenRecTrainingArguments(**settings | fields)

    return build


@pytest.fixture
def make_trainer(tokenizer, make_model, make_args):
    def build(num_users: int = 100, model=None, ranking_queries=None, callbacks=None, **fields) -> GenRecTrainer:
        return GenRecTrainer(
            make_model() if model is None else model,
            make_args(**fields),
            tokenizer,
            HistoryDataset(planted_histories(num_users, seed=0)),
            HistoryDataset.from_queries(queries_of(20, seed=1)),
            ranking_queries=ranking_queries,
            callbacks=callbacks,
        )

    return build
