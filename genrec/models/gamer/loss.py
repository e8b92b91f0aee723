"""The loss, computed where it is borne: only there do hidden states become logits.

A label stands at the column of the token itself, so the state one column before predicts it. Behavior tokens, padding
and all but the targets of a validation row bear none; with a softmax per level a state's logits are those of one level.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.functional import linear, pad

from .configuration_gamer import FIRST_BEHAVIOR, GamerConfig

IGNORED_LABEL = -100


class LabelBlock(NamedTuple):
    """Labels that share a softmax and a weight.

    Args:
        labels: Their token ids, a half-open range.
        softmax: The token ids that the softmax is over, a half-open range that holds `labels`.
        places: The places in an item of the tokens that predict them, a half-open range.
        weight: Of their loss.
    """

    labels: tuple[int, int]
    softmax: tuple[int, int]
    places: tuple[int, int]
    weight: float


def label_blocks(config: GamerConfig) -> list[LabelBlock]:
    """Return the blocks of labels that bear loss: codes, all together or level by level, and perhaps behaviors.

    Example:
        >>> config = GamerConfig(num_hidden_layers=2, codebook_sizes=[4, 4], behavior_levels=[0, 1], softmax="level")
        >>> [block.softmax for block in label_blocks(config)]
        [(4, 8), (8, 12)]
    """
    first_code, end = config.level_offsets[0], config.require_vocabulary()
    num_levels, everything = config.num_levels, (0, end)
    is_by_level = config.softmax == "level"
    blocks = [LabelBlock((first_code, end), everything, (0, num_levels), 1.0)]
    if is_by_level:
        borders = [*config.level_offsets, end]
        levels = [(borders[level], borders[level + 1]) for level in range(num_levels)]
        blocks = [LabelBlock(level, level, (place, place + 1), 1.0) for place, level in enumerate(levels)]
    if config.behavior_loss_weight:
        behaviors = (FIRST_BEHAVIOR, first_code)
        softmax = behaviors if is_by_level else everything
        blocks.append(LabelBlock(behaviors, softmax, (num_levels, num_levels + 1), config.behavior_loss_weight))
    return blocks


def next_token_loss(
    config: GamerConfig,
    hidden_states: Tensor,
    labels: Tensor,
    head: nn.Linear,
    loss_function: Callable[..., Tensor],
    temperature: float = 1.0,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Return the cross-entropy on codes, plus the weighted one on behaviors, per label that bears loss.

    Args:
        config: The vocabulary, the softmax and the weight of behaviors.
        hidden_states: The model's last ones `[batch, tokens, width]`.
        labels: Token ids, -100 where there is no loss `[batch, tokens]`.
        head: Makes logits of hidden states.
        loss_function: transformers' for causal models.
        temperature: Divides the logits.
        num_items_in_batch: What the sum is divided by; the number of labels that bear loss if left out.
    """
    blocks = label_blocks(config)
    if num_items_in_batch is None:
        num_items_in_batch = sum(_within(labels[:, 1:], block.labels).sum() for block in blocks)
    total = hidden_states.new_zeros((), dtype=torch.float32)
    for block in blocks:
        states, targets = kept_states(hidden_states, labels, block, config.tokens_per_item)
        first, end = block.softmax
        logits = _logits(states if temperature == 1 else states / temperature, head, first, end)
        targets = torch.where(targets == IGNORED_LABEL, targets, targets - first)
        total = total + block.weight * loss_function(
            logits, None, end - first, num_items_in_batch=num_items_in_batch, shift_labels=targets
        )
    return total


def kept_states(
    hidden_states: Tensor, labels: Tensor, block: LabelBlock, tokens_per_item: int
) -> tuple[Tensor, Tensor]:
    """Return the states that predict the block's labels, and these labels.

    How many there are depends on the data, which a compiled graph must not. There, rows of whole items give the states
    of all tokens at the block's places, and the labels of those that bear no loss are -100.

    Returns:
        `[kept, width]` and `[kept]`.
    """
    targets = pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    targets = torch.where(_within(targets, block.labels), targets, IGNORED_LABEL)
    if not is_compiling():
        kept = (targets.flatten() != IGNORED_LABEL).nonzero()[:, 0]
        return hidden_states.flatten(0, 1).index_select(0, kept), targets.flatten()[kept]
    if labels.shape[1] % tokens_per_item:
        return hidden_states.flatten(0, 1), targets.flatten()
    places = slice(*block.places)
    states = hidden_states.unflatten(1, (-1, tokens_per_item))[:, :, places]
    return states.flatten(0, 2), targets.unflatten(1, (-1, tokens_per_item))[:, :, places].flatten()


def _within(labels: Tensor, block: tuple[int, int]) -> Tensor:
    return (labels >= block[0]) & (labels < block[1])


def _logits(states: Tensor, head: nn.Linear, first: int, end: int) -> Tensor:
    if end - first == head.out_features:
        return head(states)
    return linear(states, head.weight[first:end])
