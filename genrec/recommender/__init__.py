"""Recommenders: everything that turns histories into each user's top k items."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.recommender.base": ["Recommendation", "Recommendations", "Recommender"],
        "genrec.recommender.generative": ["GenerativeRecommender"],
        "genrec.recommender.rules": ["CooccurrenceRecommender", "PopularityRecommender", "RecencyRecommender"],
        "genrec.recommender.scoring": ["ScoringRecommender"],
    },
)
