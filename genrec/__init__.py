"""genrec: a generative recommender from a log of behaviors, the Hugging Face way.

One table in, one hub folder out:

    log of (user, item, behavior, time) -> sessions -> item codes -> GAMER -> catalog-safe top-k items

Names are imported when first used, so that `import genrec` costs little; its one piece of import-time work is to
register the model classes with transformers' Auto classes.
"""

from genrec.lazy import lazy_exports, started_as_command
from genrec.models import auto
from genrec.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.data": ["Catalog", "InteractionLog", "PreparedDataset", "SyntheticMarket", "prepare"],
        "genrec.embedders": [
            "CollaborativeEmbedder",
            "ConcatEmbedder",
            "PrecomputedEmbedder",
            "TextEmbedder",
            "TfidfEmbedder",
        ],
        "genrec.item_tokenizers": ["AutoItemTokenizer", "ChunkedIDTokenizer", "RQKMeansTokenizer", "RQVAETokenizer"],
        "genrec.models.gamer": ["GamerConfig", "GamerForCausalLM", "GamerForRanking", "GamerModel"],
        "genrec.generation": ["ItemTrie", "TrieConstrainedLogitsProcessor", "constrained_beam_search"],
        "genrec.recommender": [
            "GenerativeRecommender",
            "ScoringRecommender",
            "Seq2SeqRecommender",
            "SequentialRecommender",
        ],
        "genrec.evaluation": ["EvaluationReport", "evaluate"],
        "genrec.training": ["GenRecTrainer", "GenRecTrainingArguments"],
    },
)

if not started_as_command():  # the command registers them itself, once a subcommand needs them
    auto.register()
