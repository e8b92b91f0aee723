"""Evaluation on item ids: metrics, protocols, intervals, paired tests, reports and plots."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.evaluation.comparison": ["compare"],
        "genrec.evaluation.evaluator": ["evaluate"],
        "genrec.evaluation.plots": ["plot_metrics", "plot_training_curves"],
        "genrec.evaluation.report": ["EvaluationReport"],
    },
)
