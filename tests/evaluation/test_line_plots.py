"""Lines in panels."""

import sys

import pytest

from genrec.evaluation.line_plots import Line, plot_lines


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'genrec\[plots\]'"):
        plot_lines({"one": {"line": Line([0, 1], [1, 2])}}, tmp_path / "plot.png", "x")


def test_a_picture_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no line to draw"):
        plot_lines({"one": {}}, tmp_path / "plot.png", "x")
    assert not list(tmp_path.iterdir())


def test_a_line_has_the_same_color_in_all_panels_and_one_entry_in_the_legend(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from genrec.evaluation import line_plots

    drawn = []
    save = line_plots._save
    monkeypatch.setattr(line_plots, "_save", lambda figure, path: (drawn.append(figure), save(figure, path))[1])
    short, long = Line([0, 1], [1, 2]), Line(range(20), range(20))
    plot_lines({"left": {"a": short, "b": long}, "right": {"b": short}}, tmp_path / "plot.png", "n")
    left, right = drawn[0].axes
    colors = {line.get_label(): line.get_color() for line in left.get_lines()}
    assert colors["b"] == right.get_lines()[0].get_color() != colors["a"]
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("left", "right")
