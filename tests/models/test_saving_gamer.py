"""Round trips through folders, in this process and in one that has no genrec."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

import genrec  # registers the Auto classes
from genrec.models import auto
from genrec.models.gamer import GamerConfig, GamerForCausalLM, GamerModel
from genrec.models.gamer.portable import save_portable

ModelOf = Callable[..., GamerForCausalLM]


def test_the_auto_classes_know_gamer(config_of: Callable[..., GamerConfig], model_of: ModelOf, tmp_path: Path):
    auto.register()  # a second time changes nothing
    model = model_of(session_wise=True)
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GamerConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), genrec.GamerModel)
    assert isinstance(AutoModelForCausalLM.from_config(config_of()), GamerForCausalLM)


def assert_same_weights(loaded: torch.nn.Module, model: torch.nn.Module):
    theirs = model.state_dict()
    assert loaded.state_dict().keys() == theirs.keys()
    assert all(torch.equal(part, theirs[name]) for name, part in loaded.state_dict().items())


@pytest.mark.parametrize("fields", [{}, {"position_experts": False, "tie_word_embeddings": False}])
def test_a_saved_model_comes_back_the_same(
    model_of: ModelOf, histories_of: Callable, tmp_path: Path, fields: dict[str, bool]
):
    model = model_of(**fields)
    input_ids, _ = histories_of(2, 4)
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_same_weights(loaded, model)
    torch.testing.assert_close(loaded(input_ids).logits, model(input_ids).logits)  # to the bit only if aligned alike
    assert loaded.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()


def test_the_base_model_loads_from_the_whole(model_of: ModelOf, histories_of: Callable, tmp_path: Path):
    model = model_of()
    model.save_pretrained(tmp_path)
    input_ids, _ = histories_of(1, 3)
    base = GamerModel.from_pretrained(tmp_path)
    assert_same_weights(base, model.model)
    torch.testing.assert_close(base(input_ids).last_hidden_state, model.model(input_ids).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loads_and_generates(
    model_of: ModelOf, histories_of: Callable, tmp_path: Path, dtype: torch.dtype
):
    model_of().save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    input_ids, _ = histories_of(2, 3)
    assert model.generate(input_ids[:, :9], num_beams=3).shape == (2, 12)
    assert model(input_ids).logits.isfinite().all()


def test_nothing_is_left_uninitialised_when_weights_are_missing(model_of: ModelOf, tmp_path: Path):
    """Raw parameters get their initial distribution, and buffers that are not stored their value."""
    model = model_of(initializer_range=0.02)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "embed_tokens" in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = GamerForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)
    for name, buffer in model.named_buffers():
        assert torch.equal(loaded.get_buffer(name), buffer), name
    for name, parameter in loaded.named_parameters():
        if "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert 0.01 < parameter.std() < 0.03, name


def test_weights_start_small_and_padding_at_zero(model_of: ModelOf):
    model = model_of(initializer_range=0.02, hidden_size=64)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            assert 0.015 < parameter.std() < 0.025, name
    assert (model.model.embed_tokens.weight[0] == 0).all()


def test_a_portable_folder_loads_where_genrec_is_missing(model_of: ModelOf, histories_of: Callable, tmp_path: Path):
    model = model_of(session_wise=True)
    save_portable(model, tmp_path / "portable")
    input_ids, session_ids = histories_of(1, 3)
    script = f"""
import sys
sys.modules["genrec"] = None  # importing it fails
import json, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "portable")!r}, trust_remote_code=True)
input_ids, session_ids = torch.tensor({input_ids.tolist()}), torch.tensor({session_ids.tolist()})
logits = model(input_ids, session_ids=session_ids).logits[0, -1].tolist()
items = model.generate(input_ids[:, :9], session_ids=session_ids[:, :9], num_beams=3).tolist()
print(json.dumps([type(model).__module__, logits, items]))
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    module, logits, items = json.loads(result.stdout.splitlines()[-1])
    assert module.startswith("transformers_modules.")
    torch.testing.assert_close(torch.tensor(logits), model(input_ids, session_ids=session_ids).logits[0, -1])
    assert items == model.generate(input_ids[:, :9], session_ids=session_ids[:, :9], num_beams=3).tolist()


def test_saving_portably_leaves_later_saves_without_code(model_of: ModelOf, tmp_path: Path):
    model = model_of()
    save_portable(model, tmp_path / "portable")
    assert json.loads((tmp_path / "portable" / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_gamer.GamerConfig",
        "AutoModelForCausalLM": "modeling_gamer.GamerForCausalLM",
    }
    model.save_pretrained(tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "plain" / "config.json").read_text())
