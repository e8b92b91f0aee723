"""`EncoderDecoderTrainer` on a world with a rule: it learns, resumes to the bit, and refuses what it would ignore."""

import json

import numpy as np
import pytest
import torch

from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.models.encoder_decoder import (
    MBGenConfig,
    MBGenForConditionalGeneration,
    TigerConfig,
    TigerForConditionalGeneration,
)
from genrec.recommender import Seq2SeqRecommender
from genrec.training.arguments import GenRecTrainingArguments
from genrec.training.encoder_decoder_trainer import EncoderDecoderTrainer
from genrec.training.item_samples import InteractionDataset
from genrec.training.samples import HistoryDataset

from .planted_log import DAY, NUM_ITEMS, last_asked, planted_log

LENGTHS = (2, 4)
SHAPE = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    return ChunkedIDTokenizer(chunk_size=4).fit(None, np.arange(NUM_ITEMS), "view,buy")


@pytest.fixture
def make_trainer(tokenizer, tmp_path):
    def build(kind="tiger-mb", num_users=150, folder="run", **fields):
        torch.manual_seed(0)
        vocabulary = tokenizer.model_config_fields()
        if kind == "mbgen":
            config = MBGenConfig(**SHAPE, behavior_injection_layers=[0], **vocabulary)
            model = MBGenForConditionalGeneration(config)
        else:
            config = TigerConfig(**SHAPE, behavior_tokens=kind == "tiger-mb", **vocabulary)
            model = TigerForConditionalGeneration(config)
        settings = {
            "output_dir": str(tmp_path / folder),
            "per_device_train_batch_size": 32,
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "ranking_num_beams": 10,
            "use_cpu": True,
            "disable_tqdm": True,
        }
        validation = last_asked(planted_log(30, seed=1, lengths=LENGTHS))
        return EncoderDecoderTrainer(
            model,
            GenRecTrainingArguments(**settings | fields),
            tokenizer,
            InteractionDataset(planted_log(num_users, seed=0, lengths=LENGTHS), 50),
            HistoryDataset.from_queries(validation),
            ranking_queries=validation,
        )

    return build


@pytest.mark.parametrize("kind", ["tiger", "mbgen"])
def test_it_learns_the_rule(kind, make_trainer, tokenizer, tmp_path):
    trainer = make_trainer(kind, num_users=300, num_train_epochs=6)
    trainer.train()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    figures = [record["eval_ndcg@10"] for record in records if "eval_ndcg@10" in record]
    losses = [record["eval_loss"] for record in records if "eval_loss" in record]
    assert len(figures) == 6
    assert losses[-1] < 0.75 * losses[0]
    assert max(figures) > 0.55  # about 0.28 by chance: ten of sixteen items
    recommender = Seq2SeqRecommender(trainer.model, tokenizer)
    found = recommender.recommend([[(3, "view", 0), (2, "buy", DAY)]], k=1, behavior="view")[0]
    assert found.item_ids[0] in range(NUM_ITEMS)


def test_an_interrupted_run_goes_on_to_the_same_weights(make_trainer):
    straight = make_trainer(num_users=40, folder="straight")
    straight.train()
    stopped = make_trainer(num_users=40, folder="stopped", num_train_epochs=2)
    stopped.args.num_train_epochs = 2
    stopped.add_callback(_StopAfterFirstEpoch())
    stopped.train()
    resumed = make_trainer(num_users=40, folder="stopped")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == straight.state.global_step
    for ours, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_validation_loss_is_the_mean_over_label_tokens_at_the_temperature(make_trainer):
    trainer = make_trainer(num_users=20, temperature=0.7, per_device_eval_batch_size=7)
    batch = trainer.data_collator([trainer.eval_dataset[row] for row in range(len(trainer.eval_dataset))])
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(**batch).logits.log_softmax(dim=-1)
        tempered = (trainer.model(**batch).logits / 0.7).log_softmax(dim=-1)
    expected = -tempered.gather(2, batch["labels"][..., None]).mean()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert expected.item() != pytest.approx(-logits.gather(2, batch["labels"][..., None]).mean().item())


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"packing": True}, "packing"),
        ({"causal_share": 0.5}, "causal_share"),
        ({"max_tokens_per_micro_batch": 4000}, "max_tokens_per_micro_batch"),
        ({"pointer_lr_factor": 2.0}, "pointer_lr_factor"),
    ],
)
def test_what_would_be_ignored_is_refused(fields, name, make_trainer):
    with pytest.raises(ValueError, match=f"`{name}=.*would be ignored"):
        make_trainer(num_users=5, **fields)


def test_another_vocabulary_is_refused(make_trainer, tmp_path):
    trainer = make_trainer(num_users=5)
    other = ChunkedIDTokenizer(chunk_size=3).fit(None, np.arange(NUM_ITEMS), "view,buy")
    with pytest.raises(ValueError, match="token ids but the item tokenizer"):
        EncoderDecoderTrainer(trainer.model, trainer.args, other, trainer.train_dataset)


class _StopAfterFirstEpoch:
    """A callback; `Trainer` needs only the methods it calls."""

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda args, state, control, **kwargs: control

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop = True
        return control
