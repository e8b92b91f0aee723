"""New items without retraining: give them codes, save, and they can be recommended; no old code changes.

python examples/add_items.py runs/demo/checkpoint --folder runs/with_new_items
"""

import argparse
from pathlib import Path

import numpy as np

from genrec import GenerativeRecommender


def main(checkpoint: str, folder: Path) -> None:
    """Add two items that look like ones of the catalog, and recommend nothing but them."""
    recommender = GenerativeRecommender.from_pretrained(checkpoint)
    tokenizer, catalog = recommender.tokenizer, recommender.catalog
    old_codes = tokenizer.codes.clone()

    # An item's vector comes from the embedder that the tokenizer was fitted with; here two are made up.
    width = tokenizer.codebooks[0].shape[1]
    vectors = np.random.default_rng(0).normal(size=(2, width)).astype(np.float32)
    largest = max(tokenizer.item_ids.tolist())
    new_ids = [largest + 1, largest + 2] if isinstance(largest, int) else ["new item 1", "new item 2"]
    tokenizer.add_items(new_ids, vectors)
    assert (tokenizer.codes[: len(old_codes)] == old_codes).all()

    grown = GenerativeRecommender(
        recommender.model,
        tokenizer,
        catalog and catalog.with_items(new_ids),
        context=recommender.context,
        gap_minutes=recommender.gap_minutes,
    )
    grown.save_pretrained(folder)
    print(GenerativeRecommender.from_pretrained(folder).recommend([[]], k=2, allow=new_ids)[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="A checkpoint folder or a repository `owner/name`.")
    parser.add_argument("--folder", type=Path, default=Path("runs/with_new_items"))
    main(**vars(parser.parse_args()))
