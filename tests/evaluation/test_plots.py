import sys

import pytest

from genrec.evaluation import EvaluationReport, plots
from genrec.evaluation.plots import plot_metrics, plot_training_curves, read_metrics

pytest.importorskip("matplotlib")

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, as objects."""
    drawn = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (drawn.append(figure), save(figure, path))[1])
    return drawn


def row(model, behavior, value, protocol="last-session", low=None, high=None):
    fields = {"model": model, "protocol": protocol, "behavior": behavior, "metric": "ndcg@10"}
    return {**fields, "value": value, "low": low, "high": high, "records": 1200}


def heights(axis):
    """The drawn value of each model at each behavior: (label, x rounded to the behavior's place) -> y."""
    return {
        (container.get_label(), round(x)): y
        for container in axis.containers
        for x, y in zip(*container.lines[0].get_data(), strict=True)
    }


def test_metrics_are_drawn_where_they_belong(tmp_path, figures):
    report = EvaluationReport(
        [
            row("recency", "buy", 0.1, low=0.05, high=0.15),
            row("recency", "merged", 0.2),
            row("gamer", "merged", 0.3),
            row("upper-bound", "merged", 0.9, protocol="temporal"),
        ]
    )
    path = plot_metrics(report, tmp_path / "metrics.png")
    assert path.read_bytes().startswith(PNG)
    first, second = figures[0].axes
    assert heights(first) == {("recency", 1): 0.1, ("recency", 0): 0.2, ("gamer", 0): 0.3}
    assert [label.get_text() for label in first.get_xticklabels()] == ["merged\nn = 1,200", "buy\nn = 1,200"]
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("last-session", "temporal")
    assert first.get_ylabel() == "NDCG@10"
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["gamer", "recency", "upper-bound"]


def test_whiskers_end_at_the_interval(tmp_path, figures):
    plot_metrics(EvaluationReport([row("gamer", "merged", 0.2, low=0.1, high=0.25)]), tmp_path / "m.png")
    (segment,) = figures[0].axes[0].containers[0].lines[2][0].get_segments()
    assert segment[:, 1].tolist() == pytest.approx([0.1, 0.25])


def test_models_stand_beside_each_other_in_different_colors(tmp_path, figures):
    plot_metrics(EvaluationReport([row(f"model {i}", "merged", 0.5) for i in range(5)]), tmp_path / "m.png")
    lines = [container.lines[0] for container in figures[0].axes[0].containers]
    assert len({float(line.get_xdata()[0]) for line in lines}) == 5
    assert len({line.get_color() for line in lines}) == 5
    assert len({line.get_marker() for line in lines}) == 5


def test_one_protocol_can_be_drawn(tmp_path, figures):
    report = EvaluationReport([row("a", "merged", 0.1), row("a", "merged", 0.1, protocol="temporal")])
    plot_metrics(report, tmp_path / "m.png", protocols=["temporal"])
    assert [axis.get_title(loc="left") for axis in figures[0].axes] == ["temporal"]


def test_a_metric_that_was_not_measured_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no row of 'hit@1' to draw. It has the metrics ndcg@10"):
        plot_metrics(EvaluationReport([row("a", "merged", 0.1)]), tmp_path / "m.png", metric="hit@1")
    assert not (tmp_path / "m.png").exists()


def test_training_curves_show_what_was_logged(tmp_path, figures):
    lines = [
        {"epoch": 1, "step": 10, "loss": 3.0},
        {"epoch": 1, "step": 10, "eval_loss": 3.5, "eval_ndcg@10": 0.1},
        {"epoch": 2, "step": 20, "loss": 2.0},
        {"epoch": 2, "step": 20, "eval_loss": 3.0, "eval_ndcg@10": 0.3},
        {"epoch": 3, "step": 30, "eval_loss": 2.9, "eval_ndcg@10": 0.2},
        {"train_runtime": 12.0, "epoch": 3},
    ]
    path = plot_training_curves(lines, tmp_path / "curves.png")
    assert path.read_bytes().startswith(PNG)
    losses, ranking = figures[0].axes
    curves = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in losses.lines}
    assert curves == {"training": ([1, 2], [3.0, 2.0]), "validation": ([1, 2, 3], [3.5, 3.0, 2.9])}
    assert list(ranking.lines[0].get_ydata()) == [0.1, 0.3, 0.2]
    assert ranking.get_title(loc="left") == "best 0.3000 at epoch 2"
    assert (ranking.get_xlabel(), ranking.get_ylabel()) == ("epoch", "validation NDCG@10")


def test_a_run_that_was_still_improving_says_so(tmp_path, figures):
    plot_training_curves([{"step": s, "eval_ndcg@10": s / 10} for s in (1, 2)], tmp_path / "c.png")
    assert figures[0].axes[0].get_title(loc="left") == "best 0.2000 at step 2, still improving at the end"


def test_losses_alone_make_one_panel(tmp_path, figures):
    plot_training_curves([{"epoch": 1, "eval_loss": 2.0}], tmp_path / "c.png")
    (axis,) = figures[0].axes
    assert [line.get_label() for line in axis.lines] == ["validation"]


def test_curves_are_read_from_a_file(tmp_path, figures):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"epoch": 1, "loss": 2.5}\n{"epoch": 2, "loss": 2.25}\n')
    plot_training_curves(log, tmp_path / "c.png")
    assert list(figures[0].axes[0].lines[0].get_ydata()) == [2.5, 2.25]


def test_a_broken_line_is_named(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"epoch": 1}\n{"epoch": \n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not JSON"):
        read_metrics(log)


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="None of the 1 lines has `loss`, `eval_loss` or `ndcg@10`"):
        plot_training_curves([{"epoch": 1, "lr": 0.1}], tmp_path / "c.png")


def test_a_missing_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'genrec\[plots\]'"):
        plot_training_curves([{"epoch": 1, "loss": 1.0}], tmp_path / "c.png")
