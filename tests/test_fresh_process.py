"""A checkpoint folder is all that a new process needs: no network, nothing left over from training."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from genrec import GamerConfig, GamerForCausalLM, GenerativeRecommender, RQKMeansTokenizer
from genrec.data import Catalog

NUM_ITEMS = 30

READ_IT = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("the network is closed")

socket.socket.connect = refuse
socket.getaddrinfo = refuse

import genrec
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = genrec.AutoItemTokenizer.from_pretrained(folder)
inputs = tokenizer([[("i1", "view"), ("i2", "cart")], []], behavior="buy")
output = model.generate(
    **inputs, num_beams=20, num_return_sequences=10, max_new_tokens=tokenizer.num_levels,
    return_dict_in_generate=True, output_scores=True,
    logits_processor=[genrec.TrieConstrainedLogitsProcessor(tokenizer.trie())],
)
recommender = genrec.GenerativeRecommender.from_pretrained(folder)
lists = recommender.recommend([[("i1", "view"), ("i2", "cart")], []], k=10, behavior="buy")
print(json.dumps({
    "type": type(model).__name__,
    "ids": list(tokenizer.item_ids),
    "behaviors": tokenizer.behaviors,
    "generated": tokenizer.decode(output),
    "recommended": [one.item_ids for one in lists],
    "scores": [one.scores for one in lists],
    "generated_scores": output.sequences_scores.tolist(),
}))
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    ids = [f"i{row}" for row in range(NUM_ITEMS)]
    vectors = np.random.default_rng(0).standard_normal((NUM_ITEMS, 8)).astype(np.float32)
    tokenizer = RQKMeansTokenizer(codebook_sizes=[8, 8]).fit(vectors, ids, "view,cart,buy")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "cross_level_layers": [1]}
    config = GamerConfig(**sizes, **heads, behavior_injection_layers=[0], **tokenizer.model_config_fields())
    GenerativeRecommender(GamerForCausalLM(config), tokenizer, Catalog(np.array(ids, dtype=object))).save_pretrained(
        folder
    )
    result = subprocess.run([sys.executable, "-c", READ_IT, str(folder)], capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_auto_classes_find_our_model_and_the_ladder(answer):
    assert answer["type"] == "GamerForCausalLM"
    assert answer["behaviors"] == ["view", "cart", "buy"]


def test_only_catalog_items_come_out_and_none_twice(answer):
    assert len(answer["recommended"]) == 2
    for items in answer["recommended"]:
        assert len(items) == len(set(items)) == 10
        assert set(items) <= set(answer["ids"])


def test_generate_and_recommend_agree(answer):
    assert answer["generated"] == [item for items in answer["recommended"] for item in items]
    scores = [score for row in answer["scores"] for score in row]
    assert scores == pytest.approx(answer["generated_scores"], abs=1e-4)
