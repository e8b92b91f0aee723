"""Cards and pushes, the latter through the real client to a small Hub on a local port (see `hub_server`)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from genrec.data.catalog import Catalog
from genrec.hub import check_checkpoint_folder, headline_rows, model_card, push_folder, results_table, write_model_card
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.recommender import GenerativeRecommender

sys.path.append(str(Path(__file__).parent))
from hub_server import HubState, hub_server

TOKEN = "hf_dummy"
LARGE_SUFFIXES = (".safetensors", ".parquet")
ROW = {"model": "gamer", "protocol": "last-session", "behavior": "merged", "metric": "ndcg@10", "records": 9}

PUSH = """
import sys
from genrec.cli.errors import friendly_errors
from genrec.cli.main import app
from genrec.hub import push_folder
app(["push", sys.argv[1], "me/shop", "--license", "mit"], standalone_mode=False)
app(["push", sys.argv[1], "me/portable", "--portable", "--public"], standalone_mode=False)
with friendly_errors(debug=False):
    push_folder(sys.argv[1], "me/stranger", token="hf_wrong")
"""
LOAD = """
import json, genrec
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("me/shop")
tokenizer = genrec.AutoItemTokenizer.from_pretrained("me/shop")
lists = genrec.GenerativeRecommender.from_pretrained("me/shop").recommend([[("a", "view"), ("c", "buy")]], k=3)
print(json.dumps([type(model).__name__, tokenizer.item_ids.tolist(), lists[0].item_ids, lists[0].scores]))
"""
LOAD_WITHOUT_GENREC = """
import sys
sys.modules["genrec"] = None  # importing it raises ImportError
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("me/portable", trust_remote_code=True)
print(type(model).__module__.split(".")[0], model(torch.tensor([[2, 5]])).logits.shape[-1] == model.config.vocab_size)
"""


@pytest.fixture(scope="module")
def recommender():
    tokenizer = ChunkedIDTokenizer(chunk_size=2).fit(None, ["a", "b", "c", "d"], "view,buy")
    config = GamerConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        **tokenizer.model_config_fields(),
    )
    return GenerativeRecommender(GamerForCausalLM(config), tokenizer, Catalog(["a", "b", "c", "d"]))


def write_checkpoint(recommender, folder):
    recommender.save_pretrained(folder)
    rows = [
        {**ROW, "value": 0.25, "low": 0.2, "high": 0.3},
        {**ROW, "metric": "ndcg@5", "value": 0.1, "low": 0, "high": 1},
    ]
    report = {"name": "shop", "results": rows, "data": {"items": 4}, "still_improving": True}
    (folder / "training_report.json").write_text(json.dumps(report))
    write_model_card(folder, license="apache-2.0")
    (folder / "optimizer.pt").write_bytes(b"stays here")
    return folder


@pytest.fixture
def checkpoint(recommender, tmp_path):
    return write_checkpoint(recommender, tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def published(recommender, tmp_path_factory):
    """A Hub to which one client process has pushed a checkpoint in both forms, and then tried a wrong token."""
    folder = tmp_path_factory.mktemp("published")
    checkpoint = write_checkpoint(recommender, folder / "checkpoint")
    with hub_server(TOKEN) as (endpoint, hub):
        pushed = run_as_client(PUSH, endpoint, folder, checkpoint)
        yield Published(endpoint, hub, checkpoint, pushed, folder)


class Published(NamedTuple):
    endpoint: str
    hub: HubState
    checkpoint: Path
    pushed: subprocess.CompletedProcess
    home: Path


def run_as_client(code, endpoint, tmp_path, *arguments):
    """Run code in a process whose Hub is ours: the client reads these variables when it is imported."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )


def test_a_pushed_folder_is_stored_whole_large_files_as_lfs(published):
    assert f"to {published.endpoint}/me/shop" in published.pushed.stdout, published.pushed.stderr
    stored, folder = published.hub.repos["me/shop"], published.checkpoint
    local = {path.name for path in folder.iterdir()} - {"optimizer.pt"}
    assert set(stored) == local
    for name in local - {"README.md"}:
        assert stored[name].content == (folder / name).read_bytes(), name
    assert {name for name, file in stored.items() if file.is_lfs} == {
        name for name in local if name.endswith(LARGE_SUFFIXES)
    }
    assert published.hub.private == {"me/shop": True, "me/portable": False}


def test_the_client_took_every_step_of_a_push(published):
    requests = [request for request in published.hub.requests if request.startswith(("POST", "PUT"))]
    plain = requests[: next(row for row, request in enumerate(requests) if "commit" in request) + 1]
    steps = [
        "repos/create",
        "validate-yaml",
        "preupload/main",
        "lfs/objects/batch",
        "PUT /lfs",
        "/verify",
        "commit/main",
    ]
    first = [next(row for row, request in enumerate(plain) if step in request) for step in steps]
    assert first == sorted(first)


def test_the_uploaded_card_names_the_repository(published):
    assert 'from_pretrained("me/shop")' in published.hub.repos["me/shop"]["README.md"].content.decode()
    assert 'from_pretrained("path/to/this/folder")' in (published.checkpoint / "README.md").read_text()


def test_a_pushed_folder_loads_back_by_its_name(published, recommender):
    loaded = run_as_client(LOAD, published.endpoint, published.home)
    assert loaded.returncode == 0, loaded.stderr
    name, item_ids, items, scores = json.loads(loaded.stdout.splitlines()[-1])
    expected = recommender.recommend([[("a", "view"), ("c", "buy")]], k=3)[0]
    assert (name, item_ids, items) == ("GamerForCausalLM", ["a", "b", "c", "d"], expected.item_ids)
    assert scores == pytest.approx(expected.scores, abs=1e-4)


def test_the_portable_form_loads_in_a_process_without_genrec(published):
    stored = published.hub.repos["me/portable"]
    assert "modeling_gamer.py" in stored
    assert "auto_map" in json.loads(stored["config.json"].content)
    assert "auto_map" not in json.loads((published.checkpoint / "config.json").read_text())
    loaded = run_as_client(LOAD_WITHOUT_GENREC, published.endpoint, published.home)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == ["transformers_modules", "True"]


def test_a_wrong_token_is_one_message_and_nothing_is_stored(published):
    assert published.pushed.returncode == 2
    assert "genrec: 401" in published.pushed.stderr
    assert "Traceback" not in published.pushed.stderr
    assert "me/stranger" not in published.hub.repos


@pytest.mark.parametrize("repo_id", ["shop", "me/", "a/b/c"])
def test_a_malformed_repository_name_is_refused_before_anything_is_sent(checkpoint, repo_id):
    with pytest.raises(ValueError, match="`repo_id` must be `owner/name`"):
        push_folder(checkpoint, repo_id)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        check_checkpoint_folder(tmp_path / "nothing")
    (checkpoint / "item_ids.json").unlink()
    with pytest.raises(ValueError, match="is no checkpoint folder: item_ids.json is missing"):
        push_folder(checkpoint, "me/shop")


def test_the_card_is_filled_from_the_run(checkpoint):
    text = (checkpoint / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "genrec"
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "ndcg@10", "value": 0.25}]
    assert "| last-session | merged | gamer | .250 [.200, .300] |" in body
    assert 'recommender.recommend([[(\'a\', "view")]], k=10, behavior="buy")' in body
    assert "still improving" in body
    assert "| items | 4 |" in body
    assert "$" not in body


def test_a_card_without_a_report_says_what_is_not_known(checkpoint):
    (checkpoint / "training_report.json").unlink()
    card = model_card(checkpoint, portable=True)
    assert "Not evaluated yet." in card
    assert "Not recorded." in card
    assert "None was given: ask the publisher" in card
    assert "trust_remote_code=True" in card


def test_the_cards_code_runs_as_it_stands(checkpoint):
    card = model_card(checkpoint, location=str(checkpoint))
    for block in card.split("```python\n")[1:]:
        exec(compile(block.split("```")[0], "card", "exec"), {})


def test_a_table_has_one_line_per_model_and_behavior():
    rows = [
        {**ROW, "value": 1.0, "low": None, "high": None},
        {**ROW, "metric": "hit@10", "value": 0.5, "low": 0.4, "high": 0.6},
    ]
    assert results_table(rows).splitlines()[-1] == "| last-session | merged | gamer | 1.000 | .500 [.400, .600] |"


def test_a_card_shows_the_deepest_cut_off_and_no_slices():
    rows = [{"metric": name} for name in ("ndcg@1", "ndcg@20", "hit@20", "ndcg@20/cold", "coverage@20")]
    assert [row["metric"] for row in headline_rows(rows)] == ["ndcg@20", "hit@20"]
    assert headline_rows([]) == []


def test_the_template_comes_with_the_package():
    import genrec.hub

    assert (Path(genrec.hub.__file__).parent / "templates" / "model_card.md").is_file()
