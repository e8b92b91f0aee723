import pytest

from genrec.cli.kept import KeptStages, Stage


@pytest.fixture
def lines():
    return []


@pytest.fixture
def stages(tmp_path, lines):
    return KeptStages(tmp_path / "stages", lines.append)


def test_an_unchanged_stage_is_kept(stages, lines):
    stage = Stage("prepare", [{"gap": 30}], [])
    assert stages.run(stage, lambda: {"items": 1234}) == {"items": 1234}
    assert stages.run(stage, lambda: pytest.fail("ran again")) == {"items": 1234}
    assert lines[-1] == "[prepare] kept, nothing changed: 1,234 items"


def test_a_stage_whose_settings_changed_runs_again(stages):
    stages.run(Stage("prepare", [{"gap": 30}], []), lambda: {"items": 1})
    assert stages.run(Stage("prepare", [{"gap": 31}], []), lambda: {"items": 2}) == {"items": 2}


def test_a_stage_whose_output_is_gone_runs_again(stages, tmp_path):
    stage = Stage("train", [1], [tmp_path / "checkpoint"])
    (tmp_path / "checkpoint").mkdir()
    stages.run(stage, dict)
    (tmp_path / "checkpoint").rmdir()
    assert stages.run(stage, lambda: {"epoch": 2}) == {"epoch": 2}


def test_a_stage_that_was_stopped_is_not_finished(stages):
    stage = Stage("train", [1], [])

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.run(stage, stop)
    assert stages.summary_of(stage) is None


def test_going_back_to_settings_after_a_stopped_change_does_not_take_mixed_outputs_for_finished(stages):
    first, second = Stage("train", [1], []), Stage("train", [2], [])
    stages.run(first, dict)

    def fail():
        raise ValueError("bad input")

    with pytest.raises(ValueError, match="bad input"):
        stages.run(second, fail)
    assert stages.summary_of(first) is None


def test_seconds_of_a_stage_are_known_afterwards(stages):
    stages.run(Stage("a/train", [1], []), dict)
    assert stages.seconds_of("a/train") >= 0
    assert stages.seconds_of("b/train") == 0
