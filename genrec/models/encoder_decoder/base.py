"""What encoder-decoder models share: T5 over item codes, and the loss with its temperature."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

from genrec.models.gamer.generation_defaults import default_generation_config

from .configuration import EncoderDecoderConfig

IGNORED_LABEL = -100


class InitialisedAsT5:
    """Lets the initialisation of T5's modules take effect in classes that are not of transformers itself.

    T5 initialises an attention or a feed-forward as a whole. In the classes of others transformers takes a module
    without weights of its own for one that was loaded, and leaves it out: matrices would then have T5's
    `initializer_factor` for their standard deviation.
    """

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False: all initialisation here leaves weights alone that were loaded, one by one."""
        return False


class ItemCodeT5(InitialisedAsT5, T5ForConditionalGeneration):
    """T5 that reads a history of item codes and writes the next item's: `[behavior,] c1, ..., cL, end`.

    Args:
        config: A configuration with its vocabulary filled in.

    Raises:
        ValueError: If the configuration has no vocabulary.
    """

    config_class: type[EncoderDecoderConfig] = EncoderDecoderConfig
    config: EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig) -> None:
        config.require_vocabulary()
        super().__init__(config)
        # `generate` needs `decoder_input_ids` (the start token and, for models with behavior tokens, the behavior asked
        # for); there is no end token, since every item has as many codes.
        start = config.decoder_start_token_id
        self.generation_config = default_generation_config(config, decoder_start_token_id=start)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        temperature: float = 1.0,
        num_items_in_batch: Tensor | int | None = None,
        encoder_rows: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Return the logits, and with labels the loss.

        Several items may be written after one history: `encoder_rows` names the history of each, which the encoder then
        reads once. The targets of one session are trained so; all that this changes is that they share one draw of
        the encoder's dropout.

        Args:
            input_ids: The histories' tokens, each closed by the end token `[batch, tokens]`.
            attention_mask: 0 at padding, on either side `[batch, tokens]`.
            decoder_input_ids: What was written so far, from the start token on `[batch, written]`; with a filled cache
                only the new ones. With labels it follows from them.
            encoder_outputs: What the encoder gave for `input_ids`, which are then not read.
            past_key_values: The decoder's cache.
            labels: Tokens to write, -100 where there is no loss `[items, written]`.
            use_cache: Whether to return a cache; by default only without labels.
            temperature: Divides the logits in the loss; the logits returned are untouched.
            num_items_in_batch: What the sum over labels is divided by; the number of labels if left out.
            encoder_rows: The history that each item is written after `[items]`; one item for each history, in their
                order, if left out.
            **kwargs: T5's own, such as output switches.
        """
        if encoder_rows is not None:
            if encoder_outputs is None:
                encoder_outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
            past_key_values = self._cross_attention_cache(encoder_outputs[0], encoder_rows)
            encoder_outputs = BaseModelOutput(last_hidden_state=encoder_outputs[0][encoder_rows])
            input_ids, attention_mask = None, None if attention_mask is None else attention_mask[encoder_rows]
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            use_cache = bool(use_cache)
        output = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        if labels is not None:
            output.loss = label_loss(output.logits, labels, temperature, num_items_in_batch)
        return output

    def _cross_attention_cache(self, states: Tensor, rows: Tensor) -> EncoderDecoderCache:
        """Return keys and values of the encoder's states, computed once per history and then copied to each item.

        Args:
            states: What the encoder gave `[batch, tokens, width]`.
            rows: The history of each item `[items]`.
        """
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        blocks: Any = self.decoder.block
        for layer, block in enumerate(blocks):
            attention = block.layer[1].EncDecAttention
            keys, values = (
                project(states).unflatten(-1, (-1, attention.key_value_proj_dim)).transpose(1, 2)[rows]
                for project in (attention.k, attention.v)
            )
            cache.cross_attention_cache.update(keys, values, layer)
            cache.is_updated[layer] = True
        return cache


def label_loss(
    logits: Tensor, labels: Tensor, temperature: float = 1.0, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Return the cross-entropy of labels under tempered logits, summed and divided by a number of labels.

    Args:
        logits: `[batch, written, vocab_size]`.
        labels: `[batch, written]`, -100 where there is no loss.
        temperature: Divides the logits.
        num_items_in_batch: What the sum is divided by; the number of labels if left out.
    """
    flat = labels.flatten()
    total = cross_entropy(logits.flatten(0, 1).float() / temperature, flat, ignore_index=IGNORED_LABEL, reduction="sum")
    if num_items_in_batch is None:
        num_items_in_batch = (flat != IGNORED_LABEL).sum().clamp(min=1)
    return total / num_items_in_batch
