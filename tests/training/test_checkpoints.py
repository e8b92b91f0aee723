"""Which checkpoint is the newest, and how a broken one is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from genrec.training.checkpoints import check_checkpoint, newest_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    for name in ("config.json", "trainer_state.json"):
        (folder / name).write_text(json.dumps({"name": name}))
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
    torch.save({"step": torch.ones(3)}, folder / "optimizer.pt")
    torch.save({"cpu": torch.ones(3)}, folder / "rng_state.pth")
    return folder


def test_half_written_checkpoints_are_passed_over(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for step, state in {5: "{}", 20: "{}", 30: '{"global_st', 40: None}.items():
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-20"


@pytest.mark.parametrize(
    "name", ["checkpoint-best", "checkpoint-", "checkpoint-4-copy", "checkpoint-4.5", "checkpoint-²"]
)
def test_folders_whose_name_is_no_step_are_passed_over(checkpoint, name):
    (checkpoint.parent / name).mkdir()
    (checkpoint.parent / name / "trainer_state.json").write_text("{}")
    assert newest_checkpoint(checkpoint.parent) == checkpoint


def test_a_whole_checkpoint_passes(checkpoint):
    check_checkpoint(checkpoint)
    assert newest_checkpoint(checkpoint.parent) == checkpoint


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_the_broken_file_is_named(checkpoint, name, damage):
    path = checkpoint / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xff" * len(content))
    with pytest.raises(ValueError, match=rf"checkpoint-4/{name} is truncated or corrupt \(.+\)\. Delete the folder"):
        check_checkpoint(checkpoint)


def test_a_folder_without_the_trainers_state_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"no whole checkpoint to resume from: it has no trainer_state\.json"):
        check_checkpoint(tmp_path / "checkpoint-9")
