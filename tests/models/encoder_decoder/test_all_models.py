"""What every encoder-decoder model promises: causality, indifference to padding, the loss, saving and loading."""

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

import genrec  # noqa: F401  registers the models
from genrec.models.encoder_decoder import MODELS as KINDS
from genrec.models.encoder_decoder import TigerConfig, TigerForConditionalGeneration
from genrec.models.encoder_decoder.base import label_loss

from .conftest import TINY, batch_of, tiny_model


def test_padding_on_either_side_of_a_history_changes_nothing(name):
    model, batch = tiny_model(name), batch_of(name)
    expected = model(**batch).logits
    for padding in ((0, 7), (7, 0)):
        padded = torch.nn.functional.pad(batch["input_ids"], padding)
        mask = (padded != 0).long()
        logits = model(input_ids=padded, attention_mask=mask, labels=batch["labels"]).logits
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_a_longer_row_in_the_batch_changes_nothing(name):
    model, short, long = tiny_model(name), batch_of(name, num_items=2), batch_of(name, num_items=5, seed=9)
    width = long["input_ids"].shape[1]
    padded = torch.nn.functional.pad(short["input_ids"], (0, width - short["input_ids"].shape[1]))
    input_ids, labels = torch.cat([padded, long["input_ids"]]), torch.cat([short["labels"], long["labels"]])
    both = model(input_ids=input_ids, attention_mask=(input_ids != 0).long(), labels=labels).logits
    torch.testing.assert_close(both[:3], model(**short).logits, atol=1e-4, rtol=1e-4)


def test_items_written_after_one_history_are_as_if_each_had_its_own(name):
    model, batch = tiny_model(name), batch_of(name)
    rows = torch.tensor([0, 0, 1, 2, 2])
    labels = torch.cat([batch["labels"], batch_of(name, seed=4)["labels"]])[: len(rows)]
    mask = torch.ones_like(batch["input_ids"])
    mask[1, :3] = 0
    losses, gradients = [], []
    for inputs in (
        {"input_ids": batch["input_ids"], "attention_mask": mask, "encoder_rows": rows},
        {"input_ids": batch["input_ids"][rows], "attention_mask": mask[rows]},
    ):
        model.zero_grad()
        output = model(**inputs, labels=labels)
        output.loss.backward()
        losses.append(output.logits.detach())
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_the_decoder_sees_nothing_that_is_written_later(name):
    model, batch = tiny_model(name), batch_of(name)
    before = model(**batch).logits
    for column in range(1, batch["labels"].shape[1] - 1):
        other = batch_of(name, seed=5)["labels"]
        changed = torch.cat([batch["labels"][:, :column], other[:, column:]], dim=1)
        after = model(input_ids=batch["input_ids"], labels=changed).logits
        torch.testing.assert_close(after[:, : column + 1], before[:, : column + 1])
        assert not torch.allclose(after[:, column + 1 :], before[:, column + 1 :])


def test_every_token_of_the_history_counts(name):
    model, batch = tiny_model(name), batch_of(name, num_rows=1)
    before, other = model(**batch).logits, batch_of(name, num_rows=1, seed=3)["input_ids"]
    columns = (other != batch["input_ids"])[0].nonzero()[:, 0].tolist()
    assert len(columns) > 5
    for column in columns:
        changed = batch["input_ids"].clone()
        changed[:, column] = other[:, column]
        assert not torch.allclose(model(input_ids=changed, labels=batch["labels"]).logits, before)


def test_writing_token_by_token_with_a_cache_gives_the_same_logits(name):
    model, batch = tiny_model(name), batch_of(name)
    written = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    whole = model(input_ids=batch["input_ids"], decoder_input_ids=written).logits
    encoded = model.get_encoder()(batch["input_ids"])
    cache, steps = None, []
    for length in range(1, written.shape[1] + 1):
        inputs = model.prepare_inputs_for_generation(
            written[:, :length], past_key_values=cache, use_cache=True, encoder_outputs=encoded
        )
        inputs["decoder_input_ids"] = inputs["decoder_input_ids"][:, -1:]
        if "decoder_behaviors" in inputs:
            inputs["decoder_behaviors"] = inputs["decoder_behaviors"][:, -1:]
        output = model(**inputs)
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=1e-4)


def test_loss_by_hand_with_a_temperature_and_labels_without_loss():
    logits = torch.tensor([[[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [5.0, 5.0, 5.0]]])
    labels = torch.tensor([[1, 2, -100]])
    first = -math.log(math.exp(4) / (math.exp(4) + 2))  # 2 / 0.5 = 4
    second = -math.log(1 / (math.exp(2) + 2))
    assert label_loss(logits, labels, temperature=0.5).item() == pytest.approx((first + second) / 2)
    assert label_loss(logits, labels, 0.5, num_items_in_batch=4).item() == pytest.approx((first + second) / 4)
    assert label_loss(logits, torch.full((1, 3), -100)).item() == 0


def test_the_temperature_is_in_the_loss_only(name):
    model, batch = tiny_model(name), batch_of(name)
    plain, tempered = model(**batch), model(**batch, temperature=0.7)
    assert torch.equal(plain.logits, tempered.logits)
    assert tempered.loss.item() == pytest.approx(label_loss(plain.logits, batch["labels"], 0.7).item())
    assert tempered.loss.item() != pytest.approx(plain.loss.item())


def test_tiger_is_t5():
    model, batch = tiny_model("tiger-mb"), batch_of("tiger-mb")
    shape = {key: value for key, value in TINY.items() if key not in ("codebook_sizes", "behavior_levels")}
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=20, decoder_start_token_id=0, **shape)).eval()
    t5.load_state_dict(model.state_dict())
    ours, theirs = model(**batch), t5(**batch)
    torch.testing.assert_close(ours.logits, theirs.logits)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


def test_saving_and_loading_gives_the_same_model(name, tmp_path):
    model, batch = tiny_model(name), batch_of(name)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    assert loaded.config.to_dict() == model.config.to_dict() | {"_name_or_path": loaded.config._name_or_path}
    assert loaded.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_the_config_knows_its_vocabulary(name):
    config = tiny_model(name).config
    assert config.vocab_size == 2 + 3 + 5 + 4 + 6
    assert config.level_offsets == [5, 10, 14]


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_vocabulary_no_model_is_built(kind):
    with pytest.raises(ValueError, match="leaves them unset, as presets do"):
        kind(kind.config_class())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codebook_sizes": [4]}, "are set together or not at all"),
        ({"codebook_sizes": [0], "behavior_levels": [0]}, "`codebook_sizes` must be at least 1"),
        ({"codebook_sizes": [4], "behavior_levels": [0], "vocab_size": 9}, "`vocab_size` is 9"),
        ({"d_model": 0}, "`d_model` must be at least 1, got 0"),
        ({"dropout_rate": 1.0}, "`dropout_rate` must be a rate"),
        ({"eos_token_id": 3}, "`eos_token_id` is 1 in every vocabulary"),
        ({"behavior_token": True}, "Did you mean `behavior_tokens`"),
    ],
)
def test_a_wrong_config_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TigerConfig(**fields)


def test_fields_given_to_from_pretrained_are_checked(tmp_path):
    TigerConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`max_history_items` must be at least 1"):
        AutoConfig.from_pretrained(tmp_path, max_history_items=0)
    assert isinstance(TigerForConditionalGeneration(TigerConfig.from_pretrained(tmp_path, **TINY)), KINDS[0])
