"""`generate`: what the cache, padding, beams and sessions must not change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from genrec.models.gamer import GamerForCausalLM

ModelOf = Callable[..., GamerForCausalLM]
VARIANTS: dict[str, dict[str, Any]] = {
    "gamer": {},
    "session-wise": {"session_wise": True},
    "level-softmax": {"softmax": "level", "cross_level_layers": [0, 1]},
    "plain": {"cross_level_layers": [], "behavior_injection_layers": [], "position_experts": False},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def prompts(histories_of: Callable, asked: int = 5) -> dict[str, Tensor]:
    """Three left-padded histories of 4, 2 and 0 items, followed by the behavior asked for in a session of its own."""
    input_ids, session_ids = histories_of(3, 4)
    attention_mask = torch.ones(3, 17, dtype=torch.long)
    attention_mask[1, :8] = attention_mask[2, :16] = 0
    asked_ids = torch.full((3, 1), asked)
    input_ids = torch.cat([input_ids, asked_ids], dim=1) * attention_mask
    session_ids = torch.cat([session_ids, session_ids[:, -1:] + 1], dim=1)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "session_ids": session_ids}


def beams(model: GamerForCausalLM, inputs: dict[str, Tensor], **options: Any) -> Any:
    settings = {"num_beams": 4, "num_return_sequences": 4, "return_dict_in_generate": True, "output_scores": True}
    return model.generate(**inputs, **{**settings, **options})


@each_variant
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_generating_with_a_cache_equals_generating_without(
    model_of: ModelOf, histories_of: Callable, variant: str, implementation: str
):
    model = model_of(**VARIANTS[variant], attn_implementation=implementation)
    cached = beams(model, prompts(histories_of))
    uncached = beams(model, prompts(histories_of), use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(cached.sequences_scores, uncached.sequences_scores, atol=2e-5, rtol=0)


@each_variant
def test_a_beams_score_is_the_sum_of_its_codes_log_probabilities(
    model_of: ModelOf, histories_of: Callable, variant: str
):
    model = model_of(**VARIANTS[variant])
    inputs = prompts(histories_of)
    output = beams(model, inputs)
    sequences = output.sequences
    with torch.no_grad():
        logits = model(
            sequences,
            attention_mask=torch.nn.functional.pad(inputs["attention_mask"].repeat_interleave(4, 0), (0, 3), value=1),
            session_ids=inputs["session_ids"].repeat_interleave(4, 0)[:, [*range(17), 16, 16, 16]],
        ).logits
    chosen = logits[:, 16:19].log_softmax(dim=-1).gather(2, sequences[:, 17:, None])
    torch.testing.assert_close(output.sequences_scores, chosen.sum(dim=(1, 2)), atol=2e-5, rtol=0)


@each_variant
def test_a_history_alone_gives_what_it_gives_in_a_batch(model_of: ModelOf, histories_of: Callable, variant: str):
    model = model_of(**VARIANTS[variant])
    inputs = prompts(histories_of)
    together = beams(model, inputs)
    for user, padding in enumerate((0, 8, 16)):
        alone = beams(model, {name: values[user, None, padding:] for name, values in inputs.items()})
        rows = slice(4 * user, 4 * user + 4)
        assert torch.equal(alone.sequences[:, -3:], together.sequences[rows, -3:])
        torch.testing.assert_close(alone.sequences_scores, together.sequences_scores[rows], atol=2e-5, rtol=0)


def test_a_level_softmax_generates_one_code_per_level(model_of: ModelOf, histories_of: Callable):
    codes = beams(model_of(softmax="level"), prompts(histories_of)).sequences[:, -3:]
    assert ((codes >= torch.tensor([6, 11, 15])) & (codes < torch.tensor([11, 15, 21]))).all()


def test_the_behavior_asked_for_matters(model_of: ModelOf, histories_of: Callable):
    """In every cross-level layer, too: the target behavior token carries its own behavior."""
    model = model_of(behavior_injection_layers=[], cross_level_layers=[0, 1])
    layouts = [model.prepare_inputs_for_generation(**prompts(histories_of, asked=asked))["layout"] for asked in (2, 5)]
    assert [layout.behaviors[:, -1].tolist() for layout in layouts] == [[1, 1, 1], [4, 4, 4]]
    weak, strong = (beams(model, prompts(histories_of, asked=asked)).sequences_scores for asked in (2, 5))
    assert (weak - strong).abs().max() > 1e-3


def test_generated_tokens_stay_in_the_session_asked_for(model_of: ModelOf, histories_of: Callable):
    model = model_of(session_wise=True, softmax="level")
    seen = []
    forward = model.model.forward

    def watching(*args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["layout"].sessions[0], kwargs["layout"].rotary_positions(4)[0, -1].item()))
        return forward(*args, **kwargs)

    model.model.forward = watching
    beams(model, prompts(histories_of), num_beams=1, num_return_sequences=1)
    last_rank = seen[0][0][-1].item()
    assert last_rank == seen[0][0][-2].item() + 1
    assert [sessions[17:].tolist() for sessions, _ in seen] == [[], [last_rank], [last_rank] * 2]
    assert [position for _, position in seen] == [last_rank * 4, last_rank * 4 + 1, last_rank * 4 + 2]


def test_generate_needs_sessions_only_if_session_wise(model_of: ModelOf, histories_of: Callable):
    inputs = prompts(histories_of)
    sessions = inputs.pop("session_ids")
    with pytest.raises(ValueError, match="session-wise model needs `session_ids`"):
        beams(model_of(session_wise=True), inputs)
    with_them = beams(model_of(), inputs | {"session_ids": sessions})
    assert torch.equal(beams(model_of(), inputs).sequences, with_them.sequences)


def test_generation_starts_from_our_settings_not_the_librarys(model_of: ModelOf, histories_of: Callable):
    model = model_of()
    output = model.generate(**prompts(histories_of), return_dict_in_generate=True, output_scores=True)
    assert output.sequences.shape == (3, 17 + 3)
    assert output.beam_indices is not None
    assert output.scores[0].shape == (3 * 20, 21)


@pytest.mark.parametrize("implementation", ["static", "quantized", "offloaded"])
def test_caches_of_a_fixed_shape_are_refused(model_of: ModelOf, histories_of: Callable, implementation: str):
    with pytest.raises(
        ValueError, match=f"`cache_implementation` must be left out or \"dynamic\", got '{implementation}'"
    ):
        beams(model_of(), prompts(histories_of), cache_implementation=implementation)


def test_a_cache_without_room_for_both_attentions_is_refused(model_of: ModelOf, histories_of: Callable):
    model = model_of()
    for cache in (StaticCache(config=model.config, max_cache_len=20), DynamicCache(config=model.config)):
        with pytest.raises(ValueError, match=r"with 4 slots.*has 2 layers. Pass `DynamicCache\(\)`"):
            model(prompts(histories_of)["input_ids"], past_key_values=cache)
