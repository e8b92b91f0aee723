"""Two processes on one machine give the losses of one."""

import json
import runpy
import subprocess
import sys

import pytest

SCRIPT = """
import json
import sys
import numpy as np
import torch
from genrec.data.histories import Queries, as_histories
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.training import GenRecTrainer, GenRecTrainingArguments
from genrec.training.samples import HistoryDataset

output_dir, per_device_batch, settings = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
generator = np.random.default_rng(0)
lists = [
    [(int(item), "view") for item in generator.integers(16, size=generator.integers(1, 12))] for _ in range(97)
]
histories = as_histories(lists, item_ids=np.arange(16), ladder="view,buy")
tokenizer = ChunkedIDTokenizer(chunk_size=4).fit(None, np.arange(16), "view,buy")
torch.manual_seed(0)
model = GamerForCausalLM(
    GamerConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, dropout=0.0, **tokenizer.model_config_fields(),
    )
)
args = GenRecTrainingArguments(
    output_dir=output_dir, selection_metric="loss", per_device_train_batch_size=per_device_batch,
    per_device_eval_batch_size=per_device_batch, max_steps=20, learning_rate=5e-3, logging_steps=1,
    max_seconds=1000, use_cpu=True, disable_tqdm=True, **settings,
)
validation = HistoryDataset(histories.select(np.arange(21)), num_targets=1)
queries = Queries(histories.select(np.arange(13)), histories.select(np.arange(13, 26)))
trainer = GenRecTrainer(model, args, tokenizer, HistoryDataset(histories), validation, queries)
assert args.world_size == 16 // per_device_batch, args.world_size
trainer.train()
trainer.accelerator.end_training()
"""


def launch_two(script, output, settings: str) -> None:
    # `accelerate launch --cpu` starts one process whatever the number asked for; `--multi_gpu` starts them all, and the
    # script's own `use_cpu` keeps them off any GPU.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", "2", "--main_process_port", "0", "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", str(script), str(output), "8", settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def curves(output) -> list[list[float]]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    names = ("loss", "eval_loss", "eval_ndcg@10")
    return [[record[name] for record in records if name in record] for name in names]


@pytest.mark.parametrize("settings", ["{}", '{"packing": true, "max_tokens_per_micro_batch": 330}'])
def test_two_processes_give_the_losses_of_one(tmp_path, monkeypatch, settings):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch_two(script, tmp_path / "two", settings)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "one"), "16", settings])
    runpy.run_path(str(script))
    alone, together = curves(tmp_path / "one"), curves(tmp_path / "two")
    assert [len(curve) for curve in alone] == [20, 3, 3]
    assert alone[0][-1] < alone[0][0]
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
