"""A mixture over items, written code by code: what each component still has of the items that begin with a prefix.

The formulas stand in `mixture.py`. Here is their arithmetic on logarithms, the same for one prefix (the model's
`forward`), for many (the search) and for given items (the loss).
"""

from typing import NamedTuple

import torch
from torch import Tensor

NOTHING = -1e30  # the logarithm of no mass: finite, so that gradients of impossible components are 0 and not NaN


class Components(NamedTuple):
    """What the pointers and the gate say of each query, before any code is written.

    Args:
        gate_logits: The gate's, of the softmax and then of each pointer, without the part that the state at a token
            adds; `NOTHING` where a component has no candidate `[queries, components]`.
        log_gates: With that part, at the tokens whose states were given `[queries, tokens, components]`.
        log_weights: Of each pointer's candidates, `[queries, candidates]` each.
        codes: Their codes, `[queries, candidates, levels]` each.
        is_by_item: Whether the gates are those of whole items, or each level has its own.
    """

    gate_logits: Tensor
    log_gates: Tensor
    log_weights: list[Tensor]
    codes: list[Tensor]
    is_by_item: bool


class Prefixes(NamedTuple):
    """What the components make of the codes written so far.

    Args:
        matches: Which of each pointer's candidates begin with the prefix `[queries, prefixes, candidates]` each.
        log_mass: The softmax's log-probability of the prefix `[queries, prefixes]`.
    """

    matches: list[Tensor]
    log_mass: Tensor

    def extended(self, components: Components, level: int, codes: Tensor, log_probabilities: Tensor) -> "Prefixes":
        """Return the prefixes with one more code each.

        Args:
            components: The queries' components.
            level: The level of the codes.
            codes: Token ids `[queries, prefixes]`.
            log_probabilities: What the softmax gave them `[queries, prefixes]`.
        """
        matches = [
            match & (of_candidates[:, None, :, level] == codes[..., None])
            for match, of_candidates in zip(self.matches, components.codes, strict=True)
        ]
        return Prefixes(matches, self.log_mass + log_probabilities)

    def chosen(self, parents: Tensor) -> "Prefixes":
        """Return the prefixes at `parents` `[queries, prefixes]`, in that order."""
        matches = [match.gather(1, parents[..., None].expand(-1, -1, match.shape[2])) for match in self.matches]
        return Prefixes(matches, self.log_mass.gather(1, parents))


def no_prefix(components: Components) -> Prefixes:
    """Return the one prefix, without codes, that each query starts from."""
    matches = [torch.ones_like(each[:, None], dtype=torch.bool) for each in components.log_weights]
    return Prefixes(matches, components.log_gates.new_zeros(len(components.log_gates), 1))


def gates_at(components: Components, level: int) -> Tensor:
    """Return the gates that hold at a level, if they were computed for all of them `[queries, 1, components]`."""
    place = 0 if components.is_by_item else level
    return components.log_gates[:, place : place + 1]


def mix(
    components: Components,
    log_gates: Tensor,
    prefixes: Prefixes,
    log_probabilities: Tensor,
    level: int,
    offset: int,
    size: int,
) -> Tensor:
    """Return the mixture's log-probabilities of the next token.

    Args:
        components: The queries' components.
        log_gates: The gates at this level, of the queries or of each prefix `[queries, 1 or prefixes, components]`.
        prefixes: The codes written so far.
        log_probabilities: The softmax's, over the whole vocabulary or one level of it
            `[queries, prefixes, vocabulary]`.
        level: The level of the next code.
        offset: The level's first token id.
        size: How many there are.

    Returns:
        Like `log_probabilities`, float32.
    """
    masses = _log_masses(components, prefixes)
    weights = _log_shares(log_gates, masses, prefixes.log_mass, components.is_by_item)
    pointed = torch.zeros_like(log_probabilities[..., :size])
    first = offset if log_probabilities.shape[-1] > size else 0
    parts = zip(components.log_weights, components.codes, prefixes.matches, masses, weights[1:], strict=True)
    for log_weights, codes, matches, mass, share in parts:
        conditional = torch.where(matches, (log_weights[:, None] - mass[..., None]).exp(), 0) * share.exp()[..., None]
        places = (codes[:, None, :, level] - offset).clamp(0, size - 1).expand_as(conditional)
        pointed = pointed.scatter_add(2, places, conditional)
    mixed = log_probabilities + weights[0][..., None]
    block = slice(first, first + size)
    of_level = torch.logaddexp(mixed[..., block], pointed.log())
    return torch.cat([mixed[..., : block.start], of_level, mixed[..., block.stop :]], dim=-1)


def log_likelihoods(components: Components, codes: Tensor, log_probabilities: Tensor) -> Tensor:
    """Return the mixture's log-probability of each code of given items; an item's sum is its log-probability.

    The same as `mix` looked up at the items' codes, without a row over the vocabulary.

    Args:
        components: The queries' components.
        codes: The items' codes `[queries, levels]`.
        log_probabilities: What the softmax gave them `[queries, levels]`.

    Returns:
        `[queries, levels]` float32.
    """
    prefixes = no_prefix(components)
    masses = _log_masses(components, prefixes)
    result = []
    for level in range(codes.shape[1]):
        weights = _log_shares(gates_at(components, level), masses, prefixes.log_mass, components.is_by_item)
        prefixes = prefixes.extended(components, level, codes[:, level, None], log_probabilities[:, level, None])
        longer = _log_masses(components, prefixes)
        of_pointers = [
            torch.where(after > NOTHING / 2, weight + after - before, NOTHING)
            for weight, after, before in zip(weights[1:], longer, masses, strict=True)
        ]
        result.append(torch.stack([weights[0] + log_probabilities[:, level, None], *of_pointers]).logsumexp(dim=0))
        masses = longer
    return torch.cat(result, dim=1)


def _log_masses(components: Components, prefixes: Prefixes) -> list[Tensor]:
    """Return the log-probability that each pointer gives the prefixes, `[queries, prefixes]` each."""
    return [
        torch.where(match, weights[:, None], NOTHING).logsumexp(dim=2).clamp(NOTHING, 0)
        for weights, match in zip(components.log_weights, prefixes.matches, strict=True)
    ]


def _log_shares(log_gates: Tensor, masses: list[Tensor], log_mass: Tensor, is_by_item: bool) -> list[Tensor]:
    """Return how much each component counts for the next code, logs that add up to 1, `[queries, prefixes]` each."""
    of_softmax, *of_pointers = log_gates.unbind(dim=2)
    shares = [of_softmax + log_mass if is_by_item else of_softmax]
    for gate, mass in zip(of_pointers, masses, strict=True):
        is_live = (mass > NOTHING / 2) & (gate > NOTHING / 2)
        shares.append(torch.where(is_live, gate + mass if is_by_item else gate, NOTHING))
    total = torch.stack([share.expand_as(log_mass) for share in shares]).logsumexp(dim=0)
    return [torch.where(share > NOTHING / 2, share - total, NOTHING) for share in shares]
