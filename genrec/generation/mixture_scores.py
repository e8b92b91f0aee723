"""Scores of a model with pointers, for the fast search: the candidates are weighed once per request, then only matched.

`GamerForCausalLM.forward` says the same of one prefix; here a request has many, and keeps of each which candidates
still begin with it and what the softmax made of it (`models/gamer/prefix_mixture.py`).
"""

import torch
from torch import Tensor

from genrec.generation.prompts import Prompts
from genrec.models.gamer.item_history import ItemHistory, ItemQueries, read_item_history
from genrec.models.gamer.modeling_gamer import GamerForCausalLM
from genrec.models.gamer.pointers import as_candidates
from genrec.models.gamer.prefix_mixture import Components, Prefixes, mix, no_prefix


class MixtureScores:
    """Mixes the pointers into the scores of a request's beams, level by level.

    Args:
        model: A model with a mixture.
        prompts: The histories, what is asked, and the candidates of each request.
    """

    def __init__(self, model: GamerForCausalLM, prompts: Prompts) -> None:
        assert model.mixture is not None
        self._mixture = model.mixture
        self._embeddings = model.model.embed_tokens.weight
        self._config = model.config
        self._history = _history_of_requests(model, prompts)
        self._trend = as_candidates(prompts.trend_tokens, prompts.trend_features)
        self._neighbors = as_candidates(prompts.neighbor_tokens, prompts.neighbor_features)
        self._components: Components | None = None
        self._prefixes: Prefixes | None = None
        self._of_softmax: Tensor | None = None

    def step(self, tokens: Tensor, parents: Tensor, states: Tensor, of_softmax: Tensor, level: int) -> Tensor:
        """Return the mixture's log-probabilities of a level's codes.

        Args:
            tokens: As in `SharedPromptDecoder.step` `[requests, beams]`.
            parents: As there `[requests, beams]`.
            states: The beams' hidden states `[requests, beams, width]`.
            of_softmax: What the softmax alone says `[requests, beams, codebook size]`.
            level: The level to be scored.

        Returns:
            `[requests, beams, codebook size]` float32.
        """
        if level == 0:
            self._weigh(states)
        else:
            self._follow(tokens, parents, level - 1)
        components, prefixes = self._components, self._prefixes
        assert components is not None
        assert prefixes is not None
        gates = components.log_gates
        if not components.is_by_item:
            gates = self._mixture.log_gates(components.gate_logits, states)
        self._of_softmax = of_softmax
        offset = self._config.level_offsets[level]
        return mix(components, gates, prefixes, of_softmax, level, offset, of_softmax.shape[2])

    def _weigh(self, states: Tensor) -> None:
        """Ask the pointers, once, at the behavior tokens."""
        rows = torch.arange(len(states), device=states.device)
        queries = ItemQueries(rows, torch.full_like(rows, self._history.tokens.shape[1] - 1))
        self._components = self._mixture.components(
            states, self._history, queries, self._embeddings, self._trend, self._neighbors
        )
        self._prefixes = no_prefix(self._components)

    def _follow(self, tokens: Tensor, parents: Tensor, level: int) -> None:
        """Write one more code into each prefix."""
        assert self._components is not None
        assert self._prefixes is not None
        assert self._of_softmax is not None
        size = self._of_softmax.shape[2]
        codes = (tokens - self._config.level_offsets[level]).clamp(0, size - 1)  # dead ends have no code
        of_written = self._of_softmax.flatten(1).gather(1, parents * size + codes)
        self._prefixes = self._prefixes.chosen(parents).extended(self._components, level, tokens, of_written)


def _history_of_requests(model: GamerForCausalLM, prompts: Prompts) -> ItemHistory:
    """Return each request's items: its user's, and then the behavior it asks for."""
    num_targets = prompts.behaviors.shape[1]
    histories, sessions, times = (
        None if part is None else part.repeat_interleave(num_targets, dim=0)
        for part in (prompts.input_ids, prompts.session_ids, prompts.event_times)
    )
    assert histories is not None
    input_ids = torch.cat([histories[:, :-1], prompts.behaviors.reshape(-1, 1)], dim=1)
    return read_item_history(model.config, input_ids, sessions, times)
