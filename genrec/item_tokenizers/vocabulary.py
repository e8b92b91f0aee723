"""The model's vocabulary: plain arithmetic between (behavior, codes) and token ids.

`0` pads, `1` masks, then one token per behavior, then one contiguous block of codes per level. An item is the tokens
`[behavior, c1, ..., cL]`, so a token's level and a behavior's index follow from its id alone.
"""

from dataclasses import dataclass

PAD = 0
MASK = 1
FIRST_BEHAVIOR = 2


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of a catalog's codes.

    Args:
        num_behaviors: How many behaviors the ladder has.
        codebook_sizes: Codes per level.

    Example:
        >>> vocabulary = Vocabulary(num_behaviors=3, codebook_sizes=(16, 16))
        >>> vocabulary.level_offsets, vocabulary.vocab_size, vocabulary.behavior_token(2)
        ((5, 21), 37, 4)
    """

    num_behaviors: int
    codebook_sizes: tuple[int, ...]

    @property
    def num_levels(self) -> int:
        """Codes per item (L)."""
        return len(self.codebook_sizes)

    @property
    def tokens_per_item(self) -> int:
        """A behavior token and L codes (P = L + 1)."""
        return self.num_levels + 1

    @property
    def level_offsets(self) -> tuple[int, ...]:
        """The token id of code 0 at each level."""
        first = FIRST_BEHAVIOR + self.num_behaviors
        return tuple(first + sum(self.codebook_sizes[:level]) for level in range(self.num_levels))

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return FIRST_BEHAVIOR + self.num_behaviors + sum(self.codebook_sizes)

    def behavior_token(self, behavior: int) -> int:
        """Return the token id of a behavior index."""
        return FIRST_BEHAVIOR + behavior
