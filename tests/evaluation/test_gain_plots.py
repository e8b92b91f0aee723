"""Bars of where a gain comes from."""

import sys

import pytest

from genrec.evaluation.gain_plots import GainBar, plot_gains

BARS = [
    GainBar("plain", repeat=0.1, first_time=0.05, low=0.12, high=0.2),
    GainBar("+ copying", repeat=0.2, first_time=0.06, low=0.21, high=0.3),
    GainBar("other codes", repeat=0.2, first_time=0.02, low=0.2, high=0.25, is_branch=True),
]


@pytest.fixture
def figures(monkeypatch):
    """What was drawn."""
    pytest.importorskip("matplotlib")
    from genrec.evaluation import gain_plots

    drawn = []
    save = gain_plots._save
    monkeypatch.setattr(gain_plots, "_save", lambda figure, path: (drawn.append(figure), save(figure, path))[1])
    return drawn


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'genrec\[plots\]'"):
        plot_gains(BARS, tmp_path / "plot.png")


def test_a_picture_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no bar to draw"):
        plot_gains([], tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def test_the_parts_stand_on_each_other_with_the_interval_of_their_sum(tmp_path, figures):
    assert plot_gains(BARS, tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    (axis,) = figures[0].axes
    lower, upper, intervals = axis.containers
    assert [patch.get_height() for patch in lower] == pytest.approx([0.1, 0.2, 0.2])
    assert [patch.get_y() for patch in upper] == pytest.approx([0.1, 0.2, 0.2])
    assert [patch.get_y() + patch.get_height() for patch in upper] == pytest.approx([0.15, 0.26, 0.22])
    ends = [segment[:, 1].tolist() for segment in intervals.lines[2][0].get_segments()]
    assert ends == [pytest.approx(end) for end in ([0.12, 0.2], [0.21, 0.3], [0.2, 0.25])]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["plain", "+ copying", "other codes"]
    assert axis.get_ylabel() == "NDCG@10, merged"


def test_branches_are_paler_and_the_best_rule_is_a_named_line(tmp_path, figures):
    plot_gains(BARS, tmp_path / "plot.png", best_rule=("recency", 0.18))
    (axis,) = figures[0].axes
    shown = [patch.get_alpha() for patch in axis.containers[0]]
    assert shown[0] == shown[1] == 1 > shown[2]
    (legend,) = figures[0].legends
    assert "best rule: recency" in [text.get_text() for text in legend.get_texts()]
    (line,) = [line for line in axis.get_lines() if line.get_label() == "best rule: recency"]
    assert list(line.get_ydata()) == [0.18, 0.18]


def test_an_interval_that_a_few_users_leave_beside_the_mean_is_still_drawn(tmp_path, figures):
    plot_gains([GainBar("few", repeat=0.1, first_time=0.2, low=0.31, high=0.4)], tmp_path / "plot.png")
    (segment,) = figures[0].axes[0].containers[2].lines[2][0].get_segments()
    assert segment[:, 1].tolist() == pytest.approx([0.3, 0.4])
