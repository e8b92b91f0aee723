"""The README tells the truth: its results table is the CSV files', its code runs, its commands exist."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from genrec import GamerConfig, GamerForCausalLM, GenerativeRecommender, RQKMeansTokenizer
from genrec.data import Catalog

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_results_table_is_that_of_the_csv_files():
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "quality" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.readme_with(module.table()) == README, "run `python benchmarks/quality/table.py --write`"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with the ids that the README's histories name."""
    folder = tmp_path_factory.mktemp("readme")
    ids = np.arange(10001, 10041)
    vectors = np.random.default_rng(0).standard_normal((len(ids), 8)).astype(np.float32)
    tokenizer = RQKMeansTokenizer(codebook_sizes=[8, 8]).fit(vectors, ids, "view,cart,buy")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "session_wise": True}
    model = GamerForCausalLM(
        GamerConfig(
            **shape, **heads, cross_level_layers=[1], behavior_injection_layers=[0], **tokenizer.model_config_fields()
        )
    )
    GenerativeRecommender(model, tokenizer, Catalog(ids)).save_pretrained(folder / "runs/demo/checkpoint")
    return folder


def test_every_python_snippet_runs(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint)
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) == 2
    results = [{}, {}]
    for snippet, names in zip(snippets, results, strict=True):
        exec(compile(snippet, "README.md", "exec"), names)
    assert len(results[0]["lists"][0].item_ids) == 5
    assert not {10007, 10012} & set(results[0]["lists"][0].item_ids)
    num_levels = results[1]["tokenizer"].num_levels
    assert results[1]["output"].shape == (10, 2 * (num_levels + 1) + 1 + num_levels)
    items = results[1]["tokenizer"].decode(results[1]["output"])
    assert len(set(items)) == 10
    assert None not in items


def test_the_map_names_what_exists():
    block = README.partition("## Map of the repository")[2].split("```")[1]
    folders = re.findall(r"([a-z_]+(?:/[a-z_]+)?/)", block)
    assert "genrec/" in folders
    for folder in folders:
        assert (ROOT / folder).is_dir() or (ROOT / "genrec" / folder).is_dir(), folder
