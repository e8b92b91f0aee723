"""Recommenders: everything that turns histories into each user's top k items."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.recommender.auto": ["load_recommender"],
        "genrec.recommender.base": ["Recommendation", "Recommendations", "Recommender"],
        "genrec.recommender.encoder_decoder": ["Seq2SeqRecommender"],
        "genrec.recommender.generative": ["GenerativeRecommender"],
        "genrec.recommender.cooccurrence": ["CooccurrenceRecommender"],
        "genrec.recommender.rule_base": ["RuleRecommender"],
        "genrec.recommender.rules": ["PopularityRecommender", "RecencyRecommender"],
        "genrec.recommender.trending": ["TrendingRecommender"],
        "genrec.recommender.scoring": ["ScoringRecommender"],
        "genrec.recommender.sequential": ["SequentialRecommender"],
        "genrec.recommender.streaming": ["recommend_batches"],
    },
)
