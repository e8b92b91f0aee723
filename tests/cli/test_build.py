import numpy as np
import pytest

from genrec.cli.build import build_embedder, data_fingerprint, fit_embedder
from genrec.cli.recipe import check_recipe
from genrec.data import Catalog, as_histories


@pytest.fixture
def train():
    return as_histories([[("a", "view"), ("b", "view")], [("b", "view"), ("c", "view")]] * 3, list("abc"), "view,buy")


def test_parts_of_a_concatenation_are_built_and_fitted(train):
    section = {"name": "concat", "parts": [{"name": "collaborative", "dim": 2}, {"name": "collaborative", "dim": 1}]}
    vectors = fit_embedder(build_embedder(section, seed=0), train).embed(Catalog(list("abc")))
    assert vectors.shape == (3, 3)
    assert np.isfinite(vectors).all()


def test_the_recipes_seed_reaches_what_has_none_of_its_own():
    assert build_embedder({"name": "collaborative"}, seed=5).seed == 5
    assert build_embedder({"name": "collaborative", "seed": 2}, seed=5).seed == 2


def test_the_fingerprint_follows_the_content_of_every_file(tmp_path):
    (tmp_path / "one.csv").write_text("a")
    (tmp_path / "two.csv").write_text("b")

    def fingerprint(interactions, **data):
        return data_fingerprint(check_recipe({"name": "x", "data": {"interactions": interactions, **data}}))

    one = fingerprint(str(tmp_path / "one.csv"))
    assert fingerprint(str(tmp_path / "one.csv")) == one
    both = [
        fingerprint(str(tmp_path)),
        fingerprint(str(tmp_path / "*.csv")),
        fingerprint([str(tmp_path / name) for name in ("one.csv", "two.csv")]),
        fingerprint(str(tmp_path / "one.csv"), items=str(tmp_path / "two.csv")),
    ]
    assert len(set(both)) == 1
    assert both[0] != one
    (tmp_path / "one.csv").write_text("c")
    assert fingerprint(str(tmp_path / "one.csv")) != one


def test_a_markets_fingerprint_follows_its_settings_and_seed():
    def fingerprint(seed, **market):
        return data_fingerprint(check_recipe({"name": "x", "seed": seed, "market": market}))

    assert fingerprint(0, num_users=5) == fingerprint(0, num_users=5)
    assert len({fingerprint(0, num_users=5), fingerprint(1, num_users=5), fingerprint(0, num_users=6)}) == 3
