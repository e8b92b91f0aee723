"""How `generate` works for GAMER: its cache, and its inputs step by step."""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationConfig, GenerationMixin

from .configuration_gamer import GamerConfig
from .item_history import read_item_history
from .token_layout import read_layout


class GamerGenerationMixin(GenerationMixin):
    """transformers' `generate` for a model that must know the whole sequence at each step."""

    config: GamerConfig

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Give `generate` a cache that grows by layer, since cross-level attention has slots beyond the layers'."""
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                "GAMER's two attentions per layer need a cache that grows: `cache_implementation` must be left out or "
                f'"dynamic", got {generation_config.cache_implementation!r}.'
            )
        if generation_config.use_cache is not False and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = DynamicCache()

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        session_ids: torch.LongTensor | None = None,
        event_times: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the model's inputs for one step; what all tokens are is read off the whole sequence each time."""
        layout = read_layout(self.config, input_ids, attention_mask, session_ids)
        inputs = super().prepare_inputs_for_generation(input_ids, attention_mask=attention_mask, **kwargs)  # type: ignore[misc]
        # The layout says what these say, and rotary positions may go by sessions rather than by count.
        inputs.pop("attention_mask", None)
        inputs.pop("position_ids", None)
        inputs |= {"layout": layout.to(inputs["input_ids"].device), "event_times": event_times}
        if self.config.has_mixture:
            inputs["item_history"] = read_item_history(self.config, input_ids, session_ids, event_times)
        return inputs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]:
        """Put generated tokens into the session, and at the time, of the behavior token they follow."""
        model_kwargs = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        for name in ("session_ids", "event_times"):
            if model_kwargs.get(name) is not None:
                new = model_kwargs[name][:, -1:].expand(-1, num_new_tokens)
                model_kwargs[name] = torch.cat([model_kwargs[name], new], dim=1)
        return model_kwargs
