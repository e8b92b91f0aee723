"""`Seq2SeqRecommender`: an encoder-decoder model, its item tokenizer and its catalog, from histories to items."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput
from transformers.modeling_outputs import BaseModelOutput

from genrec.data.histories import DEFAULT_GAP_MINUTES, Histories
from genrec.generation.encoder_inputs import START, decoder_prefix, encoder_tensors
from genrec.generation.logits_processor import TrieConstrainedLogitsProcessor
from genrec.generation.trie import ItemTrie
from genrec.item_tokenizers.auto import AutoItemTokenizer
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.vocabulary import PAD
from genrec.recommender.batch_search import FEWEST_BEAMS
from genrec.recommender.checkpoint import find_checkpoint, load_catalog, load_model
from genrec.recommender.generative import GenerativeRecommender
from genrec.recommender.reading import load_gap_minutes
from genrec.recommender.served_catalog import ServedCatalog

if TYPE_CHECKING:
    from genrec.data.catalog import Catalog

SETTINGS = ("num_beams", "batch_size", "gap_minutes")


class Seq2SeqRecommender(GenerativeRecommender):
    """Recommends the items whose codes an encoder-decoder model finds most likely after a history.

    Everything but the model is as in `GenerativeRecommender`: filters, several behaviors at once, the score (the sum of
    the codes' log-probabilities) and short lists. The encoder runs once per history, however many behaviors are asked
    for. A model without behavior tokens gives every behavior the same list.

    Args:
        model: An encoder-decoder model over the item tokenizer's vocabulary, such as `TigerForConditionalGeneration`.
        tokenizer: The item tokenizer it was trained with.
        catalog: What is known about the items, in the tokenizer's row order; only kept and saved.
        num_beams: Beam width; at least k is used.
        batch_size: Histories per batch.
        gap_minutes: As in `GenerativeRecommender`.

    Raises:
        ValueError: If the model is no encoder-decoder model, the parts do not belong together, or a setting is out of
            range.

    Example:
        >>> from genrec.item_tokenizers import ChunkedIDTokenizer
        >>> from genrec.models.encoder_decoder import TigerConfig, TigerForConditionalGeneration
        >>> tokenizer = ChunkedIDTokenizer(chunk_size=2).fit(None, ["a", "b", "c"], "view,buy")
        >>> shape = dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        >>> config = TigerConfig(**shape, behavior_tokens=True, **tokenizer.model_config_fields())
        >>> recommender = Seq2SeqRecommender(TigerForConditionalGeneration(config), tokenizer)
        >>> sorted(recommender.recommend([[("a", "view"), ("b", "view")]], k=3)[0].item_ids)
        ['a', 'b', 'c']
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: ItemTokenizer,
        catalog: "Catalog | None" = None,
        *,
        num_beams: int = 20,
        batch_size: int = 64,
        gap_minutes: float = DEFAULT_GAP_MINUTES,
    ) -> None:
        if not model.config.is_encoder_decoder:
            raise ValueError(
                f"`model` must be an encoder-decoder model, got a {type(model).__name__}. Use `GenerativeRecommender`."
            )
        super().__init__(
            model,
            tokenizer,
            catalog,
            num_beams=num_beams,
            batch_size=batch_size,
            search="generate",
            gap_minutes=gap_minutes,
        )
        self._search: Any = search_encoded

    def _prompts(self, part: Histories, served: ServedCatalog, asked: int) -> dict[str, Tensor]:
        """Return the model's inputs for one behavior asked of some users."""
        config = self.model.config
        last = part.last(config.max_history_items)
        behavior_token = served.vocabulary.behavior_token(asked) if config.writes_behaviors else None
        prompts = encoder_tensors(
            last.items, last.behaviors, last.lengths, served.item_tokens, writes_behaviors=config.writes_behaviors
        )
        prompts["decoder_input_ids"] = decoder_prefix(len(part), behavior_token)
        return {name: tensor.to(self.model.device) for name, tensor in prompts.items()}

    @classmethod
    def from_pretrained(
        cls, folder_or_repo: str | Path, *, device: torch.device | str | None = None, **settings: Any
    ) -> Self:
        """Load a checkpoint folder or a repository on the Hub.

        Args:
            folder_or_repo: What `save_pretrained` wrote, or a repository id.
            device: Where to put the model; None leaves it on the CPU.
            **settings: `num_beams`, `batch_size` and `gap_minutes` (the saved one unless given); and for a repository
                `revision`, `cache_dir`, `token` and `local_files_only`.

        Raises:
            FileNotFoundError: If there is no checkpoint there.
            ValueError: If a file is truncated or corrupt, or the files do not belong together.
        """
        own = {name: settings.pop(name) for name in SETTINGS if name in settings}
        folder = find_checkpoint(folder_or_repo, **settings)
        own = {"gap_minutes": load_gap_minutes(folder), **own}
        tokenizer = AutoItemTokenizer.from_pretrained(folder)
        model: Any = load_model(folder, AutoModelForSeq2SeqLM)
        return cls(model if device is None else model.to(device), tokenizer, load_catalog(folder), **own)


@torch.no_grad()
def search_encoded(
    model: Any, prompts: list[dict[str, Tensor]], trie: ItemTrie, mask: Tensor | None, sizes: dict[str, int]
) -> GenerateBeamEncoderDecoderOutput:
    """Return `sequences` and `sequences_scores`, the behaviors of a user adjacent; histories are encoded once.

    Args:
        model: An encoder-decoder model in evaluation mode.
        prompts: For each behavior asked for, `input_ids`, `attention_mask` and `decoder_input_ids`; they differ in the
            last only. Prompts that do not differ are decoded once.
        trie: The catalog's codes.
        mask: Which items may come out, `[items]` or `[users, items]`, or None.
        sizes: `num_beams` and `num_return_sequences`.
    """
    input_ids, attention_mask = prompts[0]["input_ids"], prompts[0]["attention_mask"]
    encoded = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    found: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
    lists = []
    for prompt in prompts:
        prefix = prompt["decoder_input_ids"]
        key = tuple(prefix[0].tolist()) if len(prefix) else ()
        if key not in found:
            found[key] = _generate(model, encoded, attention_mask, prefix, trie, mask, sizes)
        lists.append(found[key])
    sequences = torch.stack([tokens.unflatten(0, (len(input_ids), -1)) for tokens, _ in lists], dim=1)
    scores = torch.stack([values.unflatten(0, (len(input_ids), -1)) for _, values in lists], dim=1)
    return GenerateBeamEncoderDecoderOutput(sequences=sequences.flatten(0, 2), sequences_scores=scores.flatten())  # type: ignore[arg-type]


def _generate(
    model: Any,
    encoded: Tensor,
    attention_mask: Tensor,
    prefix: Tensor,
    trie: ItemTrie,
    mask: Tensor | None,
    sizes: dict[str, int],
) -> tuple[Tensor, Tensor]:
    """Return the best codes behind one prefix per row, `[rows * lists, tokens]`, and their scores."""
    settings = GenerationConfig(
        max_new_tokens=trie.num_levels,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=True,
        renormalize_logits=False,
        use_cache=True,
        pad_token_id=PAD,
        decoder_start_token_id=START,
        return_dict_in_generate=True,
        output_scores=True,
        **sizes,
    )
    settings.num_beams = max(settings.num_beams, FEWEST_BEAMS)
    has_behavior = prefix.shape[1] > 1
    processor = TrieConstrainedLogitsProcessor(trie, mask, start_token=None if has_behavior else START)
    inherited, model.generation_config = model.generation_config, GenerationConfig()  # `generate` would mix it in
    try:
        output = model.generate(
            # A copy, because `generate` replaces what is in it by a row per beam.
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=attention_mask,
            decoder_input_ids=prefix,
            generation_config=settings,
            logits_processor=[processor],
        )
    finally:
        model.generation_config = inherited
    return output.sequences, output.sequences_scores
