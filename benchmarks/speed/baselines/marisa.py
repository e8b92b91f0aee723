"""Constrained decoding over marisa-trie, as GENRE offers it: codes written as characters, children found by key search.

The package finds keys by prefix, not children, so the two top levels are kept in dictionaries; elsewhere all keys below
a prefix are listed to see which characters come next.
"""

import importlib
from collections import defaultdict

from torch import Tensor


class MarisaTrie:
    """Prefix -> allowed tokens, over marisa-trie's compressed trie.

    Args:
        item_tokens: Token ids `[items, levels]`, below 0xD800 so that each is a character.

    Raises:
        ImportError: If marisa-trie is not installed.
    """

    def __init__(self, item_tokens: Tensor) -> None:
        marisa_trie = importlib.import_module("marisa_trie")
        rows = item_tokens.tolist()
        below: dict[int, set[int]] = defaultdict(set)
        for row in rows:
            below[row[0]].add(row[1])
        self.first = list(below)
        self.second = {token: list(children) for token, children in below.items()}
        self.trie = marisa_trie.Trie("".join(map(chr, row)) for row in rows)

    def allowed_tokens(self, prefix: list[int]) -> list[int]:
        """Return what may follow a prefix; nothing follows one that begins no item."""
        if len(prefix) == 0:
            return self.first
        if len(prefix) == 1:
            return self.second.get(prefix[0], [])
        keys = self.trie.keys("".join(map(chr, prefix)))
        return list({ord(key[len(prefix)]) for key in keys if len(key) > len(prefix)})
