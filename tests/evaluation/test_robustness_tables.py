"""The robustness table and plot of figures made up by hand."""

import pytest

from genrec.evaluation import line_plots
from genrec.evaluation.robustness_tables import gain_over_best, mean_of, plot_robustness, robustness_table

DROPPED = {"none": 0.0, "drop-0.5": 0.3, "session-items": 0.1}
VALUES = {  # two seeds each
    "tiger-mb": {"none": (0.2, 0.4), "drop-0.5": (0.1, 0.2), "session-items": (0.0, 0.0)},
    "gamer": {"none": (0.4, 0.4), "drop-0.5": (0.3, 0.3), "session-items": (0.2, 0.0)},
    "mbgen": {"none": (0.1, 0.1), "drop-0.5": (0.2, 0.2), "session-items": (0.0, 0.0)},
}


@pytest.fixture
def rows():
    return [
        {"model": m, "perturbation": p, "behavior": "buy", "metric": "hit@10", "value": value, "dropped": DROPPED[p]}
        for m, cells in VALUES.items()
        for p, values in cells.items()
        for value in values
    ]


def test_the_table_has_means_over_seeds_what_was_lost_and_the_gain_over_the_best_other(rows):
    lines = robustness_table(rows, "buy", ["hit@10"], gain_of="gamer").splitlines()
    assert lines == [
        "| perturbation (interactions dropped) | model | HR@10 |",
        "|---|---|---|",
        "| none (0%) | tiger-mb | 0.3000 |",
        "| none (0%) | gamer | 0.4000 |",
        "| none (0%) | mbgen | 0.1000 |",
        "| none | gain of gamer | +33.3% |",
        "| drop-0.5 (30%) | tiger-mb | 0.1500 (-50.0%) |",
        "| drop-0.5 (30%) | gamer | 0.3000 (-25.0%) |",
        "| drop-0.5 (30%) | mbgen | 0.2000 (+100.0%) |",
        "| drop-0.5 | gain of gamer | +50.0% |",
        "| session-items (10%) | tiger-mb | 0.0000 (-100.0%) |",
        "| session-items (10%) | gamer | 0.1000 (-75.0%) |",
        "| session-items (10%) | mbgen | 0.0000 (-100.0%) |",
        "| session-items | gain of gamer | - |",
    ]
    assert not any("gain" in line for line in robustness_table(rows, "buy", ["hit@10"]).splitlines())


def test_a_gain_is_over_the_best_of_the_others(rows):
    assert gain_over_best(rows, "tiger-mb", "drop-0.5", "buy", "hit@10") == pytest.approx(0.15 / 0.3 - 1)
    assert gain_over_best(rows, "gamer", "session-items", "buy", "hit@10") is None
    alone = [row for row in rows if row["model"] == "gamer"]
    with pytest.raises(ValueError, match="no model beside 'gamer'"):
        gain_over_best(alone, "gamer", "none", "buy", "hit@10")


def test_what_is_missing_is_named(rows):
    with pytest.raises(ValueError, match="No figure of 'gamer' under 'drop-1' for 'buy', 'hit@10'"):
        mean_of(rows, "gamer", "drop-1", "buy", "hit@10")
    with pytest.raises(ValueError, match="`gain_of` must be one of several models, got 'qwen3'"):
        robustness_table(rows, "buy", ["hit@10"], gain_of="qwen3")
    with pytest.raises(ValueError, match="No figure of 'tiger-mb'"):
        robustness_table(rows, "view", ["hit@10"])


def test_the_plot_has_a_line_per_model_broken_before_the_items_of_the_session(rows, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    save = line_plots._save
    monkeypatch.setattr(line_plots, "_save", lambda figure, path: (drawn.append(figure), save(figure, path))[1])
    path = plot_robustness(rows, tmp_path / "plot.png", "buy", metrics=["hit@10"])
    assert path.read_bytes().startswith(b"\x89PNG")
    (axis,) = drawn[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == list(DROPPED)
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines) == list(VALUES)
    assert lines["gamer"].get_xdata().tolist() == [0, 1, 1.5, 2]
    assert lines["gamer"].get_ydata().tolist() == pytest.approx([0.4, 0.3, float("nan"), 0.1], nan_ok=True)
