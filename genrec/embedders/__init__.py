"""Items become vectors: `embed(catalog) -> [items, dim]` float32."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.embedders.base": ["Embedder", "check_embeddings"],
        "genrec.embedders.collaborative": ["CollaborativeEmbedder"],
        "genrec.embedders.concat": ["ConcatEmbedder"],
        "genrec.embedders.precomputed": ["PrecomputedEmbedder"],
        "genrec.embedders.text": ["TextEmbedder"],
        "genrec.embedders.tfidf": ["TfidfEmbedder"],
    },
)
