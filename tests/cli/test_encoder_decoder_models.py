"""`genrec run` with an encoder-decoder model: the same stages, codes, report and commands as GAMER."""

import json
import re

import pytest

from genrec.cli.recipe import check_recipe, load_recipe
from genrec.hub import check_checkpoint_folder
from genrec.recommender import Seq2SeqRecommender, load_recommender

MODEL = {"preset": "tiger-mb-tiny", "d_model": 16, "d_ff": 32, "max_history_items": 12}
TRAINING = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "ranking_num_beams": 10,
    "max_ranking_queries": 10,
}


@pytest.fixture
def encoder_decoder(settings):
    """The recipe of the shop with a tiny TIGER-MB instead of GAMER."""
    return settings | {"model": dict(MODEL), "training": dict(TRAINING)}


@pytest.mark.parametrize("preset", ["tiger-mb-tiny", "mbgen-tiny"])
def test_a_run_leaves_a_checkpoint_that_recommends_and_a_report(encoder_decoder, preset, write, genrec, tmp_path):
    encoder_decoder["model"]["preset"] = preset
    result = genrec("run", write(encoder_decoder), "--debug")
    assert result.exit_code == 0, result.output
    stages = [line.split("]")[0][1:] for line in result.stdout.splitlines() if "] done in" in line]
    assert stages == ["prepare", "last-session/tokenize", "last-session/train", "evaluate"]
    folder = tmp_path / "run" / "checkpoint"
    check_checkpoint_folder(folder)
    results = json.loads((tmp_path / "run" / "report.json").read_text())["results"]
    assert preset in {row["model"] for row in results}
    assert isinstance(load_recommender(folder, num_beams=10, batch_size=5), Seq2SeqRecommender)
    answer = genrec("recommend", folder, "--user", "u3", "-k", "3")
    assert answer.exit_code == 0, answer.output
    assert len(answer.stdout.splitlines()) == 4


def test_check_estimates_with_codes(encoder_decoder, write, genrec):
    result = genrec("run", write(encoder_decoder), "--check")
    assert result.exit_code == 0, result.output
    assert "codes: 8x8" in result.stdout
    assert "parameters;" in result.stdout


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("training", {"packing": True}, "Unknown key `training.packing`"),
        ("training", {"augmentation_copies": "two"}, "`training.augmentation_copies` must be"),
        ("model", {"preset": "mbgen", "codebook_sizes": [5]}, "`model.codebook_sizes` follows from the item tokenizer"),
        ("model", {"preset": "tiger", "behavior_token": True}, "Did you mean `model.behavior_tokens`"),
        ("hub", {"repo_id": "owner/name", "portable": True}, "`hub.portable` is for GAMER"),
    ],
)
def test_a_recipe_with_what_such_a_model_would_ignore_is_refused(encoder_decoder, section, value, message):
    with pytest.raises(ValueError, match=message):
        check_recipe(encoder_decoder | {section: value})


def test_the_model_is_called_by_its_preset_unless_named(encoder_decoder):
    assert check_recipe(encoder_decoder).evaluation.model_name == "tiger-mb-tiny"
    named = check_recipe(encoder_decoder | {"evaluation": {"model_name": "tiger-wide"}})
    assert named.evaluation.model_name == "tiger-wide"


@pytest.mark.parametrize("name", ["deskdrop+tiger-mb", "deskdrop+mbgen"])
def test_the_recipes_that_come_along_are_right(name):
    assert load_recipe(name).model["preset"] == name.removeprefix("deskdrop+") + "-tiny"


def test_thinned_copies_of_histories_give_samples_too(encoder_decoder, write, genrec):
    encoder_decoder["training"] |= {"num_train_epochs": 1}
    samples = []
    for copies in (0, 2):
        encoder_decoder["training"]["augmentation_copies"] = copies
        result = genrec("run", write(encoder_decoder), "--debug")
        assert result.exit_code == 0, result.output
        samples.append(int(re.search(r"([\d,]+) training samples", result.stdout)[1].replace(",", "")))
    assert samples[1] > samples[0]
