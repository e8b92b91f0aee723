"""What the benchmarks run on: a preset with random weights, random items, random histories, all from one seed."""

from typing import Any

import torch
from torch import Tensor

from genrec.generation import ItemTrie
from genrec.item_tokenizers.vocabulary import FIRST_BEHAVIOR
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.presets import preset_path

BEHAVIOR_LEVELS = (0, 1, 2)  # view, cart, buy
CODEBOOK_SIZE = 256


def random_config(preset: str, num_levels: int = 4, **fields: Any) -> GamerConfig:
    """Return a preset's configuration over three behaviors and levels of 256 codes.

    Args:
        preset: A name in `hub_configs/`.
        num_levels: Codes per item.
        **fields: Configuration fields to replace.

    Example:
        >>> random_config("gamer-tiny", num_levels=3).codebook_sizes
        [256, 256, 256]
    """
    vocabulary = {"codebook_sizes": [CODEBOOK_SIZE] * num_levels, "behavior_levels": list(BEHAVIOR_LEVELS)}
    return GamerConfig.from_pretrained(preset_path("hub_configs", preset), **{**vocabulary, **fields})


def random_model(preset: str, num_levels: int = 4, seed: int = 0, **fields: Any) -> GamerForCausalLM:
    """Return a model of `random_config` with seeded random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return GamerForCausalLM(random_config(preset, num_levels, **fields)).eval()


def random_codes(num_items: int, num_levels: int, seed: int = 0, zipf: bool = False) -> Tensor:
    """Return distinct codes `[items, levels]`, in random order.

    Args:
        num_items: How many.
        num_levels: Codes per item, each in 0..255.
        seed: Decides the codes.
        zipf: Whether code `c` of each level is drawn with a probability proportional to `1 / (c + 1)`; else all codes
            are equally likely.

    Raises:
        ValueError: If there are not that many codes.
    """
    if num_items > CODEBOOK_SIZE**num_levels:
        raise ValueError(f"{num_levels} levels of {CODEBOOK_SIZE} codes name fewer than {num_items} items. Add levels.")
    generator = torch.Generator().manual_seed(seed)
    weights = 1 / torch.arange(1.0, CODEBOOK_SIZE + 1) if zipf else torch.ones(CODEBOOK_SIZE)
    codes = torch.empty(0, num_levels, dtype=torch.uint8)
    while len(codes) < num_items:
        count = num_items - len(codes) + num_items // 8
        drawn = [torch.multinomial(weights, count, replacement=True, generator=generator) for _ in range(num_levels)]
        codes = _distinct(torch.cat([codes, torch.stack(drawn, dim=1).to(torch.uint8)]))
    return codes[torch.randperm(len(codes), generator=generator)[:num_items]].long()


def _distinct(codes: Tensor) -> Tensor:
    """Return each row once; a row of up to eight bytes is compared as one number."""
    width = codes.shape[1]
    numbers = torch.nn.functional.pad(codes, (0, 8 - width)).contiguous().view(torch.int64)
    return torch.unique(numbers).view(torch.uint8).view(-1, 8)[:, :width]


def item_tokens(config: GamerConfig, codes: Tensor) -> Tensor:
    """Return the token ids of codes, `[items, levels]`."""
    return codes + torch.tensor(config.level_offsets)


def random_prompts(tokens: Tensor, batch_size: int, history_items: int, seed: int = 0) -> dict[str, Tensor]:
    """Return the inputs of users with random histories of equal length, asked for the strongest behavior.

    Args:
        tokens: The items' token ids `[items, levels]`.
        batch_size: How many users.
        history_items: Items in each history.
        seed: Decides the histories.

    Returns:
        `input_ids` and `attention_mask`, `[users, history_items * (levels + 1) + 1]`.
    """
    generator = torch.Generator().manual_seed(seed)
    items = tokens[torch.randint(len(tokens), (batch_size, history_items), generator=generator)]
    behaviors = torch.randint(len(BEHAVIOR_LEVELS), (batch_size, history_items, 1), generator=generator)
    history = torch.cat([behaviors + FIRST_BEHAVIOR, items], dim=2).flatten(1)
    asked = torch.full((batch_size, 1), FIRST_BEHAVIOR + len(BEHAVIOR_LEVELS) - 1)
    input_ids = torch.cat([history, asked], dim=1)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def item_trie(config: GamerConfig, tokens: Tensor) -> ItemTrie:
    """Return the trie of items over the model's vocabulary."""
    return ItemTrie(tokens, config.require_vocabulary(), config.level_offsets)
