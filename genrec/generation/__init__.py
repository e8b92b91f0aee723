"""Catalog-safe decoding: a trie of all item codes, a logits processor over it, and a fast beam search."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.generation.beam_search": ["constrained_beam_search"],
        "genrec.generation.logits_processor": ["TrieConstrainedLogitsProcessor"],
        "genrec.generation.search_buckets": ["BucketedSearch"],
        "genrec.generation.trie": ["ItemTrie"],
    },
)
