"""GAMER for ranking: labels cannot leak, candidates stand alone, and what it learns is what it is asked."""

import math

import pytest
import torch
from transformers import AutoModel

import genrec
from genrec.models.gamer import GamerForRanking, GamerRankingConfig

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "cross_level_layers": [0, 1],
    "behavior_injection_layers": [0, 1],
    "behavior_embedding_dim": 4,
    "dropout": 0.0,
    "initializer_range": 0.3,
}
VOCABULARY = {"codebook_sizes": [4, 6], "behavior_levels": [0, 1]}


def tiny(seed: int = 0, **fields) -> GamerForRanking:
    torch.manual_seed(seed)
    return GamerForRanking(GamerRankingConfig(**(SIZES | VOCABULARY | fields))).eval()


def history() -> dict[str, torch.Tensor]:
    return {
        "codes": torch.tensor([[[0, 3], [2, 5], [1, 1], [3, 0]]]),
        "behaviors": torch.tensor([[0, 1, 0, 1]]),
        "sessions": torch.tensor([[0, 0, 1, 2]]),
        "candidate_codes": torch.tensor([[[0, 3], [1, 4]]]),
    }


def all_log_odds(model: GamerForRanking, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the behavior head's answers at all masks, those of the history too `[items, behaviors]`."""
    seen = []
    handle = model.behavior_head.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0][0]


@pytest.mark.parametrize("changed", range(4))
def test_an_interaction_s_own_behavior_and_what_follows_never_reach_its_answer(changed):
    model, inputs = tiny(), history()
    before = all_log_odds(model, inputs)
    inputs["behaviors"][0, changed] = 1 - inputs["behaviors"][0, changed]
    after = all_log_odds(model, inputs)
    sessions = torch.tensor([0, 0, 1, 2, 3, 3])
    is_later = sessions > sessions[changed]
    torch.testing.assert_close(after[~is_later], before[~is_later], rtol=0, atol=0)
    assert (after[is_later] != before[is_later]).any(dim=1).all()


def test_a_candidate_is_asked_exactly_what_training_asked():
    """The last interaction of a history, made a candidate, gets the same answer as at its mask in the history."""
    model, inputs = tiny(), history()
    in_history = all_log_odds(model, inputs)[3]
    shorter = {name: values[:, :3] for name, values in inputs.items() if name != "candidate_codes"}
    as_candidate = all_log_odds(model, shorter | {"candidate_codes": inputs["codes"][:, 3:]})[3]
    torch.testing.assert_close(as_candidate, in_history)


def test_candidates_do_not_influence_each_other():
    model, inputs = tiny(), history()
    together = model(**inputs).logits[0]
    for place in range(2):
        alone = inputs | {"candidate_codes": inputs["candidate_codes"][:, place : place + 1]}
        torch.testing.assert_close(model(**alone).logits[0, 0], together[place])


@pytest.mark.parametrize("pads_left", [True, False])
def test_padding_changes_nothing(pads_left):
    model, inputs = tiny(), history()
    labels = torch.tensor([[0, 1]])
    plain = model(**inputs, labels=labels)
    pads = {"codes": -1, "behaviors": 1, "sessions": 0, "candidate_codes": -1}

    def padded(name: str, values: torch.Tensor, filler: int) -> torch.Tensor:
        more = torch.full((1, 2, *values.shape[2:]), filler)
        at_left = pads_left and name != "candidate_codes"
        return torch.cat([more, values] if at_left else [values, more], dim=1)

    wide = {name: padded(name, inputs[name], filler) for name, filler in pads.items()}
    output = model(**wide, labels=padded("candidate_codes", labels, -100))
    torch.testing.assert_close(output.logits[:, :2], plain.logits)
    torch.testing.assert_close(output.loss, plain.loss)


def test_an_empty_history_is_answered():
    inputs = history()
    empty = {name: values[:, :0] for name, values in inputs.items() if name != "candidate_codes"}
    output = tiny()(**empty, candidate_codes=inputs["candidate_codes"], labels=torch.tensor([[0, 1]]))
    assert output.logits.shape == (1, 2)
    assert torch.isfinite(output.logits).all()
    assert torch.isfinite(output.loss)


def test_the_answer_is_the_log_odds_of_the_highest_level():
    model = tiny(behavior_levels=[0, 0, 1])
    with torch.no_grad():
        model.behavior_head.weight.zero_()
        model.behavior_head.bias.copy_(torch.tensor([0.2, 0.3, 0.5]).log())
        logits = model(**history()).logits
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 2), 0.5))


def test_the_loss_is_the_mean_over_behaviors_plus_that_over_codes():
    """With heads that know nothing each behavior costs log 2 and each code the logarithm of the code vocabulary."""
    for weight in (0.0, 1.0, 0.5):
        model = tiny(code_loss_weight=weight, tie_word_embeddings=False)
        with torch.no_grad():
            for head in (model.code_head, model.behavior_head):
                for parameter in head.parameters():
                    parameter.zero_()
        loss = model(**history(), labels=torch.tensor([[0, -100]])).loss
        assert loss.item() == pytest.approx(math.log(2) + weight * math.log(1 + 4 + 6))


def test_codes_are_predicted_from_what_stands_before_them_only():
    """The code loss of the candidates' first codes would need what comes before them: they bear none."""
    model, inputs = tiny(), history()
    losses = []
    for first_codes in ([0, 1], [3, 2]):
        inputs["candidate_codes"][0, :, 0] = torch.tensor(first_codes)
        asked = inputs | {"labels": torch.full((1, 2), -100)}
        with torch.no_grad():
            model.behavior_head.weight.zero_()
            model.code_head.weight[1:].copy_(model.code_head.weight[1:2].expand(10, -1))  # all codes look the same
            losses.append(model(**asked).loss)
    torch.testing.assert_close(losses[0], losses[1])


def test_a_planted_pattern_is_learned():
    """Users who converted before convert on items whose first code is even: history and candidate are both needed."""
    model = tiny(initializer_range=0.05).train()
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def batch(size: int = 64) -> dict[str, torch.Tensor]:
        codes = torch.stack([torch.randint(4, (size, 4)), torch.randint(6, (size, 4))], dim=2)
        has_converted = torch.randint(2, (size, 1))
        return {
            "codes": codes[:, :1],
            "behaviors": has_converted,
            "sessions": torch.zeros(size, 1, dtype=torch.long),
            "candidate_codes": codes[:, 1:],
            "labels": has_converted * (codes[:, 1:, 0] % 2 == 0),
        }

    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**batch()).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    test = batch()
    with torch.no_grad():
        logits = model.eval()(**test).logits
    assert losses[-1] < losses[0]
    assert ((logits > 0) == test["labels"].bool()).float().mean() > 0.95


def test_it_survives_saving_and_the_auto_class(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is genrec.GamerForRanking
    torch.testing.assert_close(loaded(**history()).logits, model(**history()).logits, rtol=0, atol=0)
    assert loaded.code_head.weight is loaded.model.embed_tokens.weight


def test_vocabularies_are_apart():
    model = tiny()
    assert model.model.embed_tokens.weight.shape == (1 + 4 + 6, 16)
    assert model.model.embed_behaviors.weight.shape == (2 + 2, 16)
    assert model.code_head.out_features == 11
    assert model.behavior_head.out_features == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"session_wise": False}, "`session_wise` must stay True for ranking, got False"),
        ({"copy_head": True}, "`copy_head` must stay False"),
        ({"softmax": "level"}, "`softmax` must stay 'full'"),
        ({"code_loss_weight": -1}, "`code_loss_weight` must not be negative, got -1"),
        ({"behavior_levels": [0, 0]}, "`behavior_levels` must have two levels"),
        ({"code_loss_weigth": 1}, "Did you mean `code_loss_weight`"),
    ],
)
def test_a_configuration_refuses_what_would_be_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        GamerRankingConfig(**(SIZES | VOCABULARY | fields))


def test_a_preset_needs_a_vocabulary_and_codes_the_right_levels():
    with pytest.raises(ValueError, match="A model needs `codebook_sizes`"):
        GamerForRanking(GamerRankingConfig(**SIZES))
    inputs = history()
    with pytest.raises(ValueError, match=r"`candidate_codes` must be \[batch, items, 2\]"):
        tiny()(**inputs | {"candidate_codes": inputs["candidate_codes"][..., :1]})
