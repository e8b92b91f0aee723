"""The logits and losses that the paper authors' implementation gives, recorded once (float32, no dropout, no padding).

The release averages over the whole row where cross-level attention sees nothing; the recording has zero there, as here.
"""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from genrec.models.gamer import GamerConfig, GamerForCausalLM

FIXTURES = Path(__file__).parent.parent / "fixtures"
EXPERT = re.compile(r"(.*\.mlp)\.experts\.expert_(\d+)\.(gate|up|down)_proj\.weight")
RENAMED = {
    "post_self_attention_layernorm": "cross_attention_layernorm",
    "post_cross_attention_layernorm": "post_attention_layernorm",
    "cross_attn.gating": "cross_attn.gate_proj",
}


def our_state_dict(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the released weights and stack their experts."""
    ours: dict[str, Tensor] = {}
    parts: dict[str, dict[str, list[Tensor]]] = {}
    for name in sorted(released):
        if match := EXPERT.fullmatch(name):
            parts.setdefault(match[1], {}).setdefault(match[3], []).append(released[name])
        else:
            old = next((old for old in RENAMED if old in name), "")
            ours[name.replace(old, RENAMED.get(old, ""))] = released[name]
    for module, stacks in parts.items():
        gate, up, down = (torch.stack(stacks[part]) for part in ("gate", "up", "down"))
        ours |= {f"{module}.gate_up_proj": torch.cat([gate, up], dim=1), f"{module}.down_proj": down}
    return ours | {"lm_head.weight": ours["model.embed_tokens.weight"]}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gamer", "gamer_session"])
def test_recorded_logits_and_losses_are_reproduced(name: str, implementation: str):
    recorded = load_file(FIXTURES / f"{name}.safetensors")
    config = GamerConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        codebook_sizes=[16, 16, 16],
        behavior_levels=[0, 1, 1, 2],
        behavior_embedding_dim=8,
        behavior_injection_layers=[0, 1],
        cross_level_layers=[2, 3],
        session_wise=name == "gamer_session",
        attn_implementation=implementation,
    )
    model = GamerForCausalLM(config).eval()
    prefix = "weights."
    weights = {key.removeprefix(prefix): value for key, value in recorded.items() if key.startswith(prefix)}
    model.load_state_dict(our_state_dict(weights))
    input_ids = recorded["input_ids"]
    session_ids = recorded["session_ids"].repeat_interleave(4, dim=1)
    with torch.no_grad():
        output = model(input_ids, session_ids=session_ids, labels=input_ids, temperature=0.7, return_logits=True)
    torch.testing.assert_close(output.logits, recorded["logits"], atol=5e-5, rtol=0)
    torch.testing.assert_close(output.loss, recorded["loss_at_temperature_0.7"][0], atol=1e-5, rtol=0)
