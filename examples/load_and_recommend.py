"""Load a checkpoint folder, or a repository on the Hub, and recommend: ours in three lines, then plain transformers.

python examples/load_and_recommend.py runs/demo/checkpoint
"""

import argparse

from transformers import AutoModelForCausalLM

import genrec


def main(checkpoint: str) -> None:
    """Ask for the same items twice, the second time with nothing but `generate`."""
    recommender = genrec.GenerativeRecommender.from_pretrained(checkpoint)
    weakest, target = recommender.tokenizer.behaviors[0], recommender.tokenizer.behaviors[-1]
    history = [(item_id, weakest) for item_id in recommender.tokenizer.item_ids[:3].tolist()]
    lists = recommender.recommend([history], k=5, behavior=target, exclude_seen=True)
    print("new to this user:", lists[0].item_ids)
    print(lists.to_table().to_pylist()[0])

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = genrec.AutoItemTokenizer.from_pretrained(checkpoint)
    output = model.generate(
        **tokenizer([history], behavior=target),
        num_beams=20,
        num_return_sequences=5,
        max_new_tokens=tokenizer.num_levels,
        logits_processor=[genrec.TrieConstrainedLogitsProcessor(tokenizer.trie())],
    )
    print("plain generate:  ", tokenizer.decode(output))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="A checkpoint folder or a repository `owner/name`.")
    main(**vars(parser.parse_args()))
