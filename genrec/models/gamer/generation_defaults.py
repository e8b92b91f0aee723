"""Settings of `generate` with which any model of ours writes one item's codes."""

from typing import Any

from transformers.generation import GenerationConfig


def default_generation_config(config: Any, **settings: Any) -> GenerationConfig:
    """Return the complete settings of beam search for one item; its score is the sum of its codes' log-probabilities.

    Every setting that touches lengths or scores is stated, at the value that leaves them alone, so that none is
    inherited. Nothing is sampled; `top_k` is then unused, and 50 the only value that transformers agrees to save.

    Args:
        config: The model's configuration; the number of its levels is how many tokens are generated.
        **settings: What a kind of model needs besides.
    """
    return GenerationConfig(
        max_new_tokens=config.num_levels or None,
        min_length=0,
        do_sample=False,
        num_beams=20,
        num_return_sequences=1,
        length_penalty=0.0,
        early_stopping=True,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        typical_p=1.0,
        epsilon_cutoff=0.0,
        eta_cutoff=0.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        renormalize_logits=False,
        use_cache=True,
        pad_token_id=config.pad_token_id,
        **settings,
    )
