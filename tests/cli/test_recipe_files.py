"""Recipes with variants over them: what is merged, starts anew or is taken away, and how the result is called."""

import pytest

from genrec.cli.recipe import load_recipe
from genrec.cli.recipe_files import apply_override, overlaid, read_recipe
from genrec.presets import preset_names

VARIANTS = preset_names("variants")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_fits_a_log_and_names_its_model(variant):
    recipe = load_recipe(f"deskdrop+{variant}")
    assert recipe.name == f"deskdrop_{variant}"
    assert recipe.evaluation.model_name == variant
    plain = load_recipe("deskdrop", ["evaluation.model_name=" + variant], name=recipe.name)
    assert (recipe == plain) == (variant == "gamer")  # all others change something


@pytest.mark.parametrize("log", ["retailrocket", "taobao", "market"])
def test_every_log_takes_models_of_every_family(log):
    assert load_recipe(f"{log}+sasrec").scores_items
    assert load_recipe(f"{log}+mbgen").model["preset"] == "mbgen-tiny"
    assert load_recipe(log).data == load_recipe(f"{log}+qwen3").data


def test_variants_are_put_over_one_after_the_other():
    recipe = load_recipe("deskdrop+qwen3+augmented-4+chunked")
    assert recipe.name == "deskdrop_qwen3-augmented-4-chunked"
    assert (recipe.model["position_experts"], recipe.training["augmentation_copies"]) == (False, 4)
    assert recipe.item_tokenizer == {"name": "chunked"}
    assert recipe.embedder is None


def test_a_variant_stands_on_the_one_that_it_extends():
    plain, b = load_recipe("deskdrop+sasrec"), load_recipe("deskdrop+sasrec-b")
    assert (b.item_tokenizer, b.evaluation.num_beams) == (plain.item_tokenizer, plain.evaluation.num_beams)
    own = {"learning_rate": 0.003, "per_device_train_batch_size": 16}
    assert b.training == {**plain.training, **own}
    assert b.model == {"preset": "sasrec-b", "max_history_items": 50}


def test_a_recipe_alone_keeps_its_name_and_its_models():
    assert load_recipe("deskdrop").name == "deskdrop"
    assert load_recipe("deskdrop").evaluation.model_name == "gamer"
    assert load_recipe("deskdrop_gamer-plus-tiny").evaluation.model_name == "gamer-plus-tiny"
    assert load_recipe("deskdrop_gamer-plus-tiny+no-experts").name == "deskdrop_gamer-plus-tiny-no-experts"


def test_a_recipe_stands_on_the_one_that_it_extends(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: deskdrop+qwen3\nname: mine\ntraining: {num_train_epochs: 3}\n")
    mine, other = load_recipe(tmp_path / "mine.yaml"), load_recipe("deskdrop+qwen3")
    assert (mine.name, mine.model, mine.data) == ("mine", other.model, other.data)
    assert mine.training == {**other.training, "num_train_epochs": 3}
    assert load_recipe("deskdrop_gamer-plus-tiny") == load_recipe("deskdrop+gamer-plus-tiny")


def test_files_of_ones_own_are_recipes_and_variants(tmp_path):
    shop = "name: shop\ndata: {interactions: log.csv, behaviors: 'view,buy'}\nmodel: {preset: gamer-tiny}\n"
    for name in ("shop", "shop+1"):  # a file's own name may hold a plus
        (tmp_path / f"{name}.yaml").write_text(shop)
        assert load_recipe(tmp_path / f"{name}.yaml").name == "shop"
    (tmp_path / "wide.yaml").write_text("extends: qwen3\nmodel: {hidden_size: 128}\n")
    recipe = load_recipe(f"{tmp_path}/shop.yaml+{tmp_path}/wide.yaml")
    assert (recipe.name, recipe.model["hidden_size"], recipe.model["position_experts"]) == ("shop_wide", 128, False)


def test_null_takes_a_key_away_and_another_class_starts_anew():
    base = {"embedder": {"name": "tfidf", "dim": 8}, "training": {"seed": 1, "num_train_epochs": 2}}
    changed = overlaid(base, {"embedder": {"name": "collaborative"}, "training": {"seed": None}})
    assert changed == {"embedder": {"name": "collaborative"}, "training": {"num_train_epochs": 2}}
    assert overlaid(base, {"embedder": None}) == {"training": base["training"]}
    assert base["training"]["seed"] == 1  # the base itself is untouched


@pytest.mark.parametrize("text", ["logs/*.csv", "@x", "%", "a: b: c", "{a", "|"])
def test_a_setting_that_is_no_yaml_is_a_text(text):
    content = {}
    apply_override(content, f"data.interactions={text}")
    assert content == {"data": {"interactions": text}}


@pytest.mark.parametrize(
    ("text", "variants", "message"),
    [
        ("extends: FILE\nname: x\n", "", r"recipe.yaml extends itself. Let `extends` name another file"),
        ("extends: FILE+qwen3\nname: x\n", "+sasrec", r"recipe.yaml extends itself"),
        ("seed: 1\n", "+sasrec", r"A recipe needs a `name`, which also names its run folder"),
        ("name: 2024\n", "+sasrec", r"`name` must be text, but YAML reads 2024 \(int\). Put it in quotes."),
        ("name: 2024\n", "", r"`name` must be text, but YAML reads 2024 \(int\). Put it in quotes."),
        ("name: a\nseed: 1\nseed: 2\n", "", r"recipe.yaml is not valid YAML: `seed` stands twice, in lines 2 and 3"),
        ("name: a\ndata: {items: x, items: y}\n", "", r"`items` stands twice, in line 2. Keep one of them."),
    ],
)
def test_a_broken_recipe_is_said_in_words(tmp_path, text, variants, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("FILE", str(path)))
    with pytest.raises(ValueError, match=message):
        load_recipe(f"{path}{variants}")


def test_a_variant_that_extends_itself_is_refused(tmp_path):
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {tmp_path}/{other}.yaml\n")
    with pytest.raises(ValueError, match=r"one.yaml extends itself"):
        load_recipe(f"deskdrop+{tmp_path}/one.yaml")


def test_an_empty_section_takes_a_variant(tmp_path):
    (tmp_path / "shop.yaml").write_text("name: shop\nevaluation:\n")
    assert read_recipe(f"{tmp_path}/shop.yaml+sasrec")["evaluation"] == {"model_name": "sasrec"}


def test_what_does_not_exist_is_said_with_what_does():
    with pytest.raises(FileNotFoundError, match="no variant of that name: .*sasrec"):
        read_recipe("deskdrop+sasrek")
    with pytest.raises(FileNotFoundError, match="no recipe of that name: .*deskdrop"):
        read_recipe("dekdrop+sasrec")
    with pytest.raises(FileNotFoundError, match=r"There is no variant mine/wide.yaml. Variants that come along:"):
        read_recipe("deskdrop+mine/wide.yaml")
