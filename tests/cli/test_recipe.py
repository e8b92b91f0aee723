import re

import pytest

from genrec.cli.recipe import Recipe, check_recipe, load_recipe, signature_schema
from genrec.cli.stages import recipe_text
from genrec.presets import preset_names

MINIMAL = {"name": "shop", "data": {"interactions": "log.csv", "behaviors": "view,buy"}}


def error_of(content):
    with pytest.raises(ValueError, match=".") as caught:
        check_recipe(content)
    return str(caught.value)


def test_a_minimal_recipe_gets_defaults():
    recipe = check_recipe(MINIMAL)
    assert recipe.embedder == {"name": "collaborative"}
    assert recipe.item_tokenizer == {"name": "rqkmeans"}
    assert recipe.evaluation.protocols == ["last-session"]
    assert str(recipe.folder) == "runs/shop"


@pytest.mark.parametrize("name", preset_names("recipes"))
def test_every_recipe_that_comes_along_is_valid(name):
    assert load_recipe(name).name


@pytest.mark.parametrize("name", ["shortvideoad", "tmall", "jdata"])
def test_recipes_of_the_paper_state_the_rules_of_its_importers(name):
    from genrec.data.importers import IMPORTERS

    data = {key: value for key, value in load_recipe(f"{name}_gamer-base").data.items() if value is not None}
    assert data == dict(IMPORTERS[name].settings)


def test_the_resolved_recipe_runs_again_to_the_same():
    for name in ("demo", "deskdrop", "jdata_gamer-base", "deskdrop+sasrec", "deskdrop+tiger-mb", "demo+chunked"):
        import yaml

        recipe = load_recipe(name)
        assert check_recipe(yaml.safe_load(recipe_text(recipe))) == recipe


@pytest.mark.parametrize(
    ("section", "content", "start"),
    [
        ("data", {"behavior": "view"}, "Unknown key `data.behavior`. Did you mean `data.behaviors`?"),
        ("market", {"num_user": 3}, "Unknown key `market.num_user`. Did you mean `market.num_users`?"),
        ("embedder", {"name": "tfidf", "dims": 3}, "Unknown key `embedder.dims`. Did you mean `embedder.dim`?"),
        ("embedder", {"name": "tfdif"}, "Unknown `embedder.name` `tfdif`. Did you mean `tfidf`?"),
        ("embedder", {"dim": 3}, "`embedder` needs a `name`. There are: collaborative, concat,"),
        (
            "item_tokenizer",
            {"name": "rqkmeans", "codebook_size": [2]},
            "Unknown key `item_tokenizer.codebook_size`. Did you mean `item_tokenizer.codebook_sizes`?",
        ),
        (
            "item_tokenizer",
            {"preset": "rqvea-auto"},
            "Unknown `item_tokenizer.preset` `rqvea-auto`. Did you mean `rqva",
        ),
        ("model", {"preset": "gamer-smal"}, "Unknown `model.preset` `gamer-smal`. Did you mean `gamer-small`?"),
        (
            "model",
            {"preset": "gamer-small", "hiden_size": 3},
            "Unknown key `model.hiden_size`. Did you mean `model.hidden_size`?",
        ),
        (
            "model",
            {"preset": "gamer-small", "vocab_size": 9},
            "`model.vocab_size` follows from the item tokenizer. Remove it, and set `item_tokenizer` instead.",
        ),
        (
            "training",
            {"learning_rat": 0.1},
            "Unknown key `training.learning_rat`. Did you mean `training.learning_rate`?",
        ),
        ("training", {"output_dir": "x"}, "Unknown key `training.output_dir`."),
        ("training", {"samples": "windows"}, "Unknown `training.samples` `windows`. Did you mean `window`?"),
        ("training", {"learning_rate": "high"}, "`training.learning_rate` must be a number, got 'high' (str)."),
        ("evaluation", {"num_beam": 3}, "Unknown key `evaluation.num_beam`. Did you mean `evaluation.num_beams`?"),
        (
            "evaluation",
            {"protocols": ["temporel"]},
            "`evaluation.protocols` has no 'temporel'. There are: last-session",
        ),
        ("evaluation", {"baselines": ["pop"]}, "`evaluation.baselines` has no 'pop'."),
        ("evaluation", {"protocols": []}, "`evaluation.protocols` is empty."),
        ("evaluation", {"k": 0}, "`evaluation.k` must be at least 1, got 0. Leave it out for the default, 10."),
        ("evaluation", {"batch_size": 0}, "`evaluation.batch_size` must be at least 1, got 0."),
        ("evaluation", {"num_bootstrap": 0}, "`evaluation.num_bootstrap` must be at least 1, got 0."),
        ("evaluation", {"num_beams": -3}, "`evaluation.num_beams` must be at least 1, got -3."),
        ("evaluation", {"model_name": "popularity"}, "`evaluation.model_name` must not be 'popularity', which is what"),
        ("evaluation", {"model_name": "upper-bound"}, "`evaluation.model_name` must not be 'upper-bound'"),
        ("hub", {"private": True}, "`hub` needs a `repo_id` like `owner/name`."),
        ("modell", {}, "Unknown key `modell`. Did you mean `model`? A recipe has: data, embedder, "),
        ("seed", "one", "`seed` must be a whole number, got 'one' (str)."),
        ("name", "", "A recipe needs a `name`"),
    ],
)
def test_what_is_wrong_is_named_with_its_path_and_the_nearest_right_one(section, content, start):
    assert error_of({**MINIMAL, section: content}).startswith(start)


def test_parts_of_a_concatenation_are_checked_too():
    parts = [{"name": "tfidf"}, {"name": "tfidf", "dmi": 3}]
    message = error_of({**MINIMAL, "embedder": {"name": "concat", "parts": parts}})
    assert message.startswith("Unknown key `embedder.parts[1].dmi`. Did you mean `embedder.parts[1].dim`?")


def test_an_embedder_that_nothing_reads_is_refused():
    message = error_of({**MINIMAL, "embedder": {"name": "tfidf"}, "item_tokenizer": {"name": "chunked"}})
    assert message == "`embedder` would be ignored: the item tokenizer 'chunked' reads no vectors. Remove the section."


def test_a_tokenizer_preset_is_filled_in_and_can_be_overridden():
    recipe = check_recipe({**MINIMAL, "item_tokenizer": {"preset": "rqkmeans-2x256", "seed": 3}})
    assert recipe.item_tokenizer == {"name": "rqkmeans", "codebook_sizes": [256, 256], "seed": 3}


def test_overrides_reach_into_sections_and_are_read_as_yaml():
    overrides = ["training.learning_rate=5e-4", "evaluation.protocols=[temporal]", "market.num_users=7"]
    recipe = load_recipe("demo-quick", overrides, seed=5, output="elsewhere")
    assert recipe.training["learning_rate"] == 5e-4
    assert recipe.evaluation.protocols == ["temporal"]
    assert (recipe.market["num_users"], recipe.seed, recipe.output) == (7, 5, "elsewhere")


def test_an_override_may_start_a_section():
    assert load_recipe("demo-quick", ["hub.repo_id=me/shop"]).hub.repo_id == "me/shop"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training", "`--set` takes `section.key=value`, got 'training'."),
        ("training.=3", "`--set` takes `section.key=value`, got 'training.=3'."),
        ("seed.a=3", "`--set seed.a=3`: `seed` is no section but 0."),
    ],
)
def test_a_malformed_override_is_refused(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recipe("demo-quick", [override])


def test_a_missing_recipe_names_those_that_come_along(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recipe .*nothing.yaml. Recipes that come along: demo, demo-quick"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(FileNotFoundError, match="There is no file demoo, and no recipe of that name: demo"):
        load_recipe("demoo")


def test_what_is_no_yaml_mapping_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("a: [1")
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_recipe(path)
    path.write_text("- 1")
    with pytest.raises(ValueError, match="must hold a mapping of settings, got list"):
        load_recipe(path)


def test_a_schema_holds_what_a_constructor_takes_with_its_types():
    schema = signature_schema(Recipe, without=["name"])
    assert schema["seed"] is int
    assert "name" not in schema


def test_a_date_stays_text():
    recipe = load_recipe("tmall_gamer-base", ["data.interactions=log.csv", "data.start_time=2014-11-01"])
    assert recipe.data["start_time"] == "2014-11-01"


@pytest.mark.parametrize("preset", ["din", "candidate-transformer", "gamer-ranking-tiny"])
def test_a_model_that_only_ranks_candidates_is_no_recipes_model(preset):
    assert "ranks given candidates" in error_of(MINIMAL | {"model": {"preset": preset}})
