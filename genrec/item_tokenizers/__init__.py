"""Items become codes, and histories become token ids."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.item_tokenizers.auto": ["AutoItemTokenizer"],
        "genrec.item_tokenizers.base": ["ItemTokenizer"],
        "genrec.item_tokenizers.chunked": ["ChunkedIDTokenizer"],
        "genrec.item_tokenizers.given": ["GivenCodesTokenizer"],
        "genrec.item_tokenizers.report": ["CodeReport"],
        "genrec.item_tokenizers.rqkmeans": ["RQKMeansTokenizer"],
        "genrec.item_tokenizers.rqvae": ["RQVAETokenizer"],
        "genrec.item_tokenizers.vocabulary": ["Vocabulary"],
    },
)
