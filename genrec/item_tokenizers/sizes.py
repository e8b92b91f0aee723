"""How many levels a code has and how many codes a level has, chosen from the number of items or checked against it."""

from collections.abc import Sequence

AUTO = "auto"
SLACK = 8
LARGEST_AUTO_CODEBOOK = 512
LARGEST_AUTO_CHUNK = 64
CHUNK_ROOM = 1.25

CodebookSizes = str | Sequence[int]
"""`"auto"` or one size per level."""


def auto_codebook_sizes(num_items: int) -> list[int]:
    """Choose codebook sizes for a learned tokenizer.

    The rule: as few levels as possible, at least two, all of one size, a power of two. Together they hold at least 8
    codes per item, so that similar items find different codes and new items find free ones; one codebook has at most
    half as many codes as there are items, and at most 512, so that every code can be learned from several items. A
    catalog of fewer than 4 items gets one level with a code per item.

    Args:
        num_items: Items in the catalog.

    Example:
        >>> auto_codebook_sizes(20), auto_codebook_sizes(3_000), auto_codebook_sizes(2_000_000)
        ([8, 8, 8], [256, 256], [256, 256, 256])
    """
    if num_items < 4:
        return [num_items]
    largest = min(LARGEST_AUTO_CODEBOOK, num_items // 2)
    num_levels, size = 2, 2
    while size**num_levels < SLACK * num_items:
        if size * 2 <= largest:
            size *= 2
        else:
            num_levels, size = num_levels + 1, 2
    return [size] * num_levels


def auto_chunk_size(num_items: int) -> tuple[int, int]:
    """Choose base and number of digits for chunked ids.

    The rule: as few digits as possible, at least two, of base 64 or less, with room for a quarter more items; then
    the smallest base that does it, so that no digit lies idle.

    Returns:
        The base and the number of digits.

    Example:
        >>> auto_chunk_size(20), auto_chunk_size(3_000), auto_chunk_size(2_000_000)
        ((5, 2), (62, 2), (40, 4))
    """
    wanted = CHUNK_ROOM * num_items
    num_levels = 2
    while LARGEST_AUTO_CHUNK**num_levels < wanted:
        num_levels += 1
    base = next(size for size in range(2, LARGEST_AUTO_CHUNK + 1) if size**num_levels >= wanted)
    return base, num_levels


def check_codebook_sizes(codebook_sizes: CodebookSizes, num_items: int) -> list[int]:
    """Return explicit sizes as a list.

    Raises:
        ValueError: If there is no level, a size is not a positive integer, or a codebook has more codes than the
            catalog has items: most of its codes could belong to no item.
    """
    sizes = list(codebook_sizes) if not isinstance(codebook_sizes, str) else []
    if not sizes or any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
        raise ValueError(
            f'`codebook_sizes` must be "auto" or a list with one positive size per level, got {codebook_sizes!r}.'
        )
    for level, size in enumerate(sizes):
        if size > num_items:
            raise ValueError(
                f"A codebook must not be larger than the catalog, but `codebook_sizes` asks for {size} codes at level "
                f'{level} and there are {num_items} items. Choose smaller sizes, or pass codebook_sizes="auto".'
            )
    return sizes


def choose_codebook_sizes(codebook_sizes: CodebookSizes, num_items: int) -> list[int]:
    """Return `auto_codebook_sizes` for `"auto"`, else the checked explicit sizes."""
    if codebook_sizes == AUTO:
        return auto_codebook_sizes(num_items)
    return check_codebook_sizes(codebook_sizes, num_items)
