"""`RankingTrainer` trains all ranking models alike, and measures what the metrics' own functions measure."""

import numpy as np
import pytest
import torch

from genrec.data.histories import as_histories
from genrec.data.splits import split_last_session
from genrec.models.gamer import GamerForRanking, GamerRankingConfig
from genrec.models.ranking import CandidateTransformerConfig, CandidateTransformerModel, DINConfig, DINModel
from genrec.training.ranking_samples import RankingDataset, exposures_and_conversions
from genrec.training.ranking_trainer import RankingTrainer, RankingTrainingArguments

ITEMS = list(range(6))
CODES = torch.tensor([[item % 2, item // 2] for item in ITEMS])
HOUR = 3600


def split_of_fans():
    """Users buy even items, and see odd ones; they have 3 to 8 sessions."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        shown = [generator.permutation(6)[:3] for _ in range(3 + user % 6)]
        rows.append(
            [
                (int(item), "view" if item % 2 else "buy", session * HOUR)
                for session, items in enumerate(shown)
                for item in items
            ]
        )
    return split_last_session(exposures_and_conversions(as_histories(rows, ITEMS, "view,buy"), ["buy"]))


def gamer() -> GamerForRanking:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "dropout": 0.0}
    return GamerForRanking(GamerRankingConfig(**sizes, **heads, codebook_sizes=[2, 3], behavior_levels=[0, 1]))


MAKERS = {
    "gamer": gamer,
    "din": lambda: DINModel(DINConfig(num_items=6, dropout=0.0)),
    "transformer": lambda: CandidateTransformerModel(CandidateTransformerConfig(num_items=6, dropout=0.0)),
}


def trainer_of(name: str, folder, **arguments) -> RankingTrainer:
    torch.manual_seed(0)
    split, model = split_of_fans(), MAKERS[name]()
    is_gamer = name == "gamer"
    samples = RankingDataset.of_users if is_gamer else RankingDataset.of_sessions
    epochs = 12 if is_gamer else 6  # a GAMER epoch has one sample per user, not per session
    defaults = {"num_train_epochs": epochs, "per_device_train_batch_size": 8, "learning_rate": 5e-3}
    args = RankingTrainingArguments(
        output_dir=str(folder), disable_tqdm=True, use_cpu=True, logging_strategy="no", **(defaults | arguments)
    )
    validation = RankingDataset.of_queries(split.validation, 50)
    return RankingTrainer(model, args, samples(split.train, 50), validation, CODES if is_gamer else None)


@pytest.mark.parametrize("name", MAKERS)
def test_what_items_convert_is_learned_and_the_best_epoch_is_kept(name, tmp_path):
    trainer = trainer_of(name, tmp_path)
    trainer.train()
    scored = trainer.scored(RankingDataset.of_queries(split_of_fans().test, 50))
    assert scored.auroc() > 0.95
    assert scored.gauc() > 0.95
    assert trainer.evaluate()["eval_auroc"] == pytest.approx(trainer.state.best_metric)


@pytest.mark.parametrize("name", MAKERS)
def test_scores_are_those_of_each_sample_alone(name, tmp_path):
    """Batches, padding and candidates that differ in number change no score, label or user."""
    trainer = trainer_of(name, tmp_path, per_device_eval_batch_size=3)
    split = split_of_fans()
    dataset = RankingDataset.of_sessions(split.test.targets, 50)
    longer = RankingDataset.of_sessions(split.train, 50)
    for samples in (dataset, longer):
        scored = trainer.scored(samples)
        labels, scores, users = [], [], []
        for row, sample in enumerate(samples):
            batch = trainer.data_collator([sample])
            labels += batch["labels"][0].tolist()
            with torch.no_grad():
                scores += trainer.model.eval()(**batch).logits[0].tolist()
            users += [samples.users[row]] * len(sample["labels"])
        assert scored.labels.tolist() == labels
        assert scored.users.tolist() == users
        np.testing.assert_allclose(scored.scores, scores, atol=1e-5)


def test_codes_are_for_models_that_read_them(tmp_path):
    args = RankingTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )
    with pytest.raises(ValueError, match="GamerForRanking reads codes: give `item_codes`"):
        RankingTrainer(gamer(), args)
    with pytest.raises(ValueError, match="DINModel reads catalog rows: leave `item_codes` out"):
        RankingTrainer(MAKERS["din"](), args, item_codes=CODES)
