"""The mixture heads said again, one user and one item at a time, in loops over plain Python lists.

Weights and hidden states are the model's; features, pointers, gates and the mixture itself are worked out here.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from genrec.models.gamer import GamerConfig, GamerForCausalLM

from ..tiny_shape import TINY_SHAPE

Item = tuple[int, ...]  # token ids of an item's codes

NEIGHBOR_FEATURES = 10  # eight and one for each of two windows
SIZES, OFFSETS = [3, 2, 3], [5, 8, 10]  # three behaviors: 2, 3 and 4
ITEMS: list[Item] = [(5 + a, 8 + b, 10 + c) for a in range(3) for b in range(2) for c in range(3)]
TINY: dict[str, Any] = {
    **TINY_SHAPE,
    "pointer_dim": 8,
    "codebook_sizes": SIZES,
    "behavior_levels": [0, 1, 2],
    "trend_windows": [3600, 86_400],
}
HEADS: dict[str, dict[str, Any]] = {
    "copy": {"copy_head": True},
    "trend": {"trend_head": True},
    "neighbor": {"neighbor_head": True},
    "copy and trend": {"copy_head": True, "trend_head": True},
    "copy and neighbor": {"copy_head": True, "neighbor_head": True},
    "all": {"copy_head": True, "trend_head": True, "neighbor_head": True, "time_context": True},
}


@dataclass(frozen=True)
class Request:
    """One user's past, and an item asked for.

    Args:
        items: Of each event.
        behaviors: Indices.
        sessions: Never falling.
        times: Seconds.
        asked: The behavior asked for, an index.
        session: Its session.
        time: When it is asked, seconds.
        trend: Items with their features.
        neighbors: Items with their features.
    """

    items: list[Item]
    behaviors: list[int]
    sessions: list[int]
    times: list[int]
    asked: int
    session: int
    time: int
    trend: list[tuple[Item, list[float]]] = field(default_factory=list)
    neighbors: list[tuple[Item, list[float]]] = field(default_factory=list)


def tiny_model(seed: int = 0, **fields: Any) -> GamerForCausalLM:
    """Return a model whose every weight is far from zero."""
    torch.manual_seed(seed)
    model = GamerForCausalLM(GamerConfig(**{**TINY, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
        model.model.norm.weight.fill_(1.0)
    return model


def random_requests(lengths: list[int], seed: int = 0) -> list[Request]:
    """Draw users who met the same few items again and again, some of them without any candidate."""
    draw = torch.Generator().manual_seed(seed)

    def number(end: int) -> int:
        return int(torch.randint(end, (1,), generator=draw))

    def candidates(count: int, num_features: int) -> list[tuple[Item, list[float]]]:
        return [(ITEMS[number(18)], torch.rand(num_features, generator=draw).tolist()) for _ in range(count)]

    requests = []
    for row, length in enumerate(lengths):
        favorites = [ITEMS[number(18)] for _ in range(3)]
        sessions = sorted(1 + number(length) for _ in range(length))
        times = [session * 90_000 + 600 * place for place, session in enumerate(sessions)]
        session = sessions[-1] + row % 2 if sessions else 1  # even rows ask inside the last session
        requests.append(
            Request(
                items=[favorites[number(3)] for _ in range(length)],
                behaviors=[number(3) for _ in range(length)],
                sessions=sessions,
                times=times,
                asked=number(3),
                session=session,
                time=session * 90_000 + 600 * length + number(50_000),
                trend=candidates(4 if row != 1 else 0, 4),
                neighbors=candidates(5 if row != 1 else 0, NEIGHBOR_FEATURES),
            )
        )
    return requests


def prompt_of(request: Request) -> dict[str, Tensor]:
    """Return the tokens of one user, unpadded, and the behavior asked for `[1, tokens]`."""
    parts = zip(request.behaviors, request.items, strict=True)
    tokens = [token for behavior, item in parts for token in (2 + behavior, *item)]
    columns = {
        "input_ids": [*tokens, 2 + request.asked],
        "session_ids": [*(one for one in request.sessions for _ in range(4)), request.session],
        "event_times": [*(one for one in request.times for _ in range(4)), request.time],
    }
    return {name: torch.tensor([values]) for name, values in columns.items()}


def left_padded(requests: list[Request]) -> dict[str, Tensor]:
    """Return the prompts of several users as one batch, with their candidates."""
    prompts = [prompt_of(request) for request in requests]
    width = max(prompt["input_ids"].shape[1] for prompt in prompts)
    batch = {
        name: torch.cat(
            [torch.nn.functional.pad(prompt[name], (width - prompt[name].shape[1], 0)) for prompt in prompts]
        )
        for name in prompts[0]
    }
    return {**batch, "attention_mask": (batch["input_ids"] != 0).long(), **candidates_of(requests)}


def candidates_of(requests: list[Request]) -> dict[str, Tensor]:
    """Return candidates as the model takes them, with 0 where a user has fewer than others."""
    tensors = {}
    for name, lists, num_features in (
        ("trend", [request.trend for request in requests], 4),
        ("neighbor", [request.neighbors for request in requests], NEIGHBOR_FEATURES),
    ):
        most = max(map(len, lists))
        tokens = [[item for item, _ in found] + [(0, 0, 0)] * (most - len(found)) for found in lists]
        features = [[part for _, part in found] + [[9.0] * num_features] * (most - len(found)) for found in lists]
        tensors[f"{name}_tokens"] = torch.tensor(tokens).reshape(len(lists), most, 3)
        tensors[f"{name}_features"] = torch.tensor(features).reshape(len(lists), most, num_features)
    return tensors


def inputs_for(config: GamerConfig, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what a model of this configuration does not take."""
    unused = [name for name in ("trend", "neighbor") if not getattr(config, f"{name}_head")]
    return {name: part for name, part in batch.items() if name.split("_")[0] not in unused}


def with_first_time(request: Request) -> Request:
    """Return the request at the time at which its session began, if some of it is in the history already."""
    own = [time for time, session in zip(request.times, request.sessions, strict=True) if session == request.session]
    return replace(request, time=min([*own, request.time]))


def orders_of(config: GamerConfig, request: Request) -> tuple[list[int], int]:
    """Return how many sessions (or items) come before each event, and before what is asked."""
    if not config.session_wise:
        return list(range(len(request.items))), len(request.items)
    ranks = sorted({*request.sessions, request.session})
    return [ranks.index(session) for session in request.sessions], ranks.index(request.session)


def visible_events(config: GamerConfig, request: Request) -> list[int]:
    """Return the latest earlier event of each item, oldest first."""
    orders, asked = orders_of(config, request)
    latest = {item: event for event, item in enumerate(request.items) if orders[event] < asked}
    return sorted(latest.values())


def copy_features(config: GamerConfig, request: Request, event: int, visible: list[int]) -> list[float]:
    """Return what is known of an item at its latest event."""
    orders, asked = orders_of(config, request)
    met = [request.behaviors[other] for other in range(event + 1) if request.items[other] == request.items[event]]
    levels, asked_level = config.behavior_levels, config.behavior_levels[request.asked]
    lower = [levels[behavior] + 1 for behavior in met if levels[behavior] < asked_level]
    between = asked - orders[event] - 1
    return [
        math.log1p(max(request.time - request.times[event], 0) / 3600) / 4,
        math.log1p(sum(other > event for other in visible)),
        math.log1p(between),
        float(between == 0),
        math.log1p(len(met)),
        math.log1p(len(visible)) / 4,
        float(request.asked in met),
        max(lower, default=0) / (max(levels) + 1),
        float(any(levels[behavior] > asked_level for behavior in met)),
        *(float(behavior in met) for behavior in range(config.num_behaviors)),
        *(float(behavior == request.behaviors[event]) for behavior in range(config.num_behaviors)),
    ]


def candidates_by_name(config: GamerConfig, request: Request) -> dict[str, list[tuple[Item, list[float]]]]:
    """Return each component's candidates with all their features, in the order of the components."""
    visible = visible_events(config, request)
    done = {
        request.items[event]
        for event in visible
        if any(
            request.items[other] == request.items[event] and request.behaviors[other] == request.asked
            for other in range(event + 1)
        )
    }
    seen = {request.items[event] for event in visible}
    found = {}
    if config.copy_head:
        rows = [(request.items[event], copy_features(config, request, event, visible)) for event in visible]
        if config.trend_head:
            rows = [(item, features + sum_of(request.trend, item, 4)) for item, features in rows]
        if config.neighbor_head:
            rows = [(item, features + sum_of(request.neighbors, item, NEIGHBOR_FEATURES)) for item, features in rows]
        found["copy"] = rows
    for name, is_on, given in (
        ("trend", config.trend_head, request.trend),
        ("neighbor", config.neighbor_head, request.neighbors),
    ):
        if is_on:
            found[name] = [(item, [*features, float(item in seen), float(item in done)]) for item, features in given]
    if config.neighbor_head and config.copy_head:
        found["neighbor"] = [(item, features) for item, features in found["neighbor"] if item not in seen]
    return found


def sum_of(candidates: list[tuple[Item, list[float]]], item: Item, num_features: int) -> list[float]:
    """Return the features of an item among candidates, zero where it is none."""
    rows = [features for other, features in candidates if other == item]
    return [sum(column) for column in zip(*rows, strict=True)] if rows else [0.0] * num_features


def scores_of(model: GamerForCausalLM, name: str, request: Request, state: Tensor) -> tuple[list[Item], Tensor]:
    """Return a pointer's candidates and their scores `[candidates]`."""
    pointer, embeddings = model.mixture.pointers[name], model.model.embed_tokens.weight
    items, scores = [], []
    for item, features in candidates_by_name(model.config, request)[name]:
        inner = pointer.feature_proj.weight @ torch.tensor(features) + pointer.feature_proj.bias
        inner = inner + pointer.behavior_embedding.weight[request.asked]
        score = torch.zeros(())
        if name == "trend":
            inner = inner + pointer.state_proj.weight @ state
            score = sum((pointer.affinity_proj.weight @ state) @ embeddings[code] for code in item)
        items.append(item)
        scores.append(score + pointer.score_proj.weight[0] @ (inner * torch.sigmoid(inner)))
    return items, torch.stack(scores) if scores else torch.zeros(0)


def gate_logits(model: GamerForCausalLM, request: Request, scores: list[Tensor]) -> Tensor:
    """Return the gate's logits without the part of the state, `-inf` where a component has no candidate."""
    orders, asked = orders_of(model.config, request)
    earlier = [time for time, order in zip(request.times, orders, strict=True) if order < asked]
    away = max(request.time - max(earlier), 0) / 3600 if earlier else 0.0
    totals = [part.logsumexp(0) / 4 if len(part) else torch.zeros(()) for part in scores]
    features = torch.stack([*totals, torch.tensor(math.log1p(away) / 4), torch.tensor(math.log1p(len(earlier)) / 4)])
    head = model.mixture
    logits = head.gate_behavior_embedding.weight[request.asked] + head.gate_feature_proj.weight @ features
    dead = torch.tensor([False, *(len(part) == 0 for part in scores)])
    return logits.masked_fill(dead, -math.inf)


@torch.no_grad()
def conditionals(model: GamerForCausalLM, request: Request) -> dict[Item, list[float]]:
    """Return P(code | prefix) at each level of every item that the codes can write."""
    request = with_first_time(request) if model.config.session_wise else request
    of_softmax, states = softmax_conditionals(model, request)
    pointers = [
        scores_of(model, name, request, states[ITEMS[0]][0]) for name in candidates_by_name(model.config, request)
    ]
    logits = gate_logits(model, request, [scores for _, scores in pointers])
    pointed = [dict_of_masses(items, scores.softmax(0)) for items, scores in pointers]
    result = {}
    for item in ITEMS:
        result[item] = []
        for level in range(3):
            head = model.mixture.gate_proj
            state = states[item][level if model.config.mixture == "level" else 0]
            gates = (logits + head.weight @ state + head.bias).softmax(0).tolist()
            prefix, longer = item[:level], item[: level + 1]
            parts = [(math.prod(of_softmax[item][:level]), math.prod(of_softmax[item][: level + 1]))]
            parts += [(masses.get(prefix, 0.0), masses.get(longer, 0.0)) for masses in pointed]
            result[item].append(
                mixed_by_item(gates, parts) if model.config.mixture == "item" else mixed_by_level(gates, parts)
            )
    return result


def mixed_by_item(gates: list[float], parts: list[tuple[float, float]]) -> float:
    """Return the mixture's probability of the longer prefix over that of the shorter one."""
    before, after = (sum(gate * part[end] for gate, part in zip(gates, parts, strict=True)) for end in (0, 1))
    return after / before


def mixed_by_level(gates: list[float], parts: list[tuple[float, float]]) -> float:
    """Return the mixture of the conditional probabilities of those components that hold the prefix."""
    live = [(gate, part) for gate, part in zip(gates, parts, strict=True) if part[0] > 0]
    return sum(gate * after / before for gate, (before, after) in live) / sum(gate for gate, _ in live)


def dict_of_masses(items: list[Item], weights: Tensor) -> dict[Item, float]:
    """Return the mass of every prefix."""
    masses: dict[Item, float] = {}
    for item, weight in zip(items, weights.tolist(), strict=True):
        for length in range(4):
            masses[item[:length]] = masses.get(item[:length], 0.0) + weight
    return masses


def softmax_conditionals(
    model: GamerForCausalLM, request: Request
) -> tuple[dict[Item, list[float]], dict[Item, Tensor]]:
    """Return what the softmax alone says of each level, and the hidden states it says it from `[3, width]`."""
    prompt = prompt_of(request)
    columns = {
        name: torch.cat([part, part[:, -1:].expand(1, 3)], dim=1).expand(18, -1) for name, part in prompt.items()
    }
    columns["input_ids"] = torch.cat([prompt["input_ids"].expand(18, -1), torch.tensor(ITEMS)], dim=1)
    states = model.model(**columns).last_hidden_state[:, -4:-1]
    logits = model.lm_head(states)
    probabilities: dict[Item, list[float]] = {}
    for row, item in enumerate(ITEMS):
        probabilities[item] = []
        for level, code in enumerate(item):
            block = slice(OFFSETS[level], OFFSETS[level] + SIZES[level])
            kept = logits[row, level, block] if model.config.softmax == "level" else logits[row, level]
            first = block.start if model.config.softmax == "level" else 0
            probabilities[item].append(float(kept.double().softmax(0)[code - first]))
    return probabilities, dict(zip(ITEMS, states, strict=True))
