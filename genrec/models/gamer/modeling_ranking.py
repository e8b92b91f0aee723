"""GAMER as a ranking model: how likely is it that a given item, shown to this user, leads to a conversion?

Wang et al., *Generative Sequential Recommendation via Hierarchical Behavior Modeling*, arXiv 2511.03155, appendix D:
the item comes before its behavior, codes and behaviors have a vocabulary and a head each, and a candidate's behavior is
a mask, at which the behavior head answers.

What the paper leaves open, and what is done here. In training, too, a mask stands before every behavior: an interaction
is `[c1, ..., cL, mask, behavior]`, the mask shares the behavior's rotary position and no other token sees it, so that
one pass trains the very question of inference on every interaction. Codes carry no behavior, which comes only after
them and would be the label; the mask, which may turn out to be any behavior, sees all of them in cross-level attention.
Attention is session-wise, because how a session ends is not known while it lasts; so candidates of a session do not see
each other either.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from transformers.modeling_outputs import SequenceClassifierOutput

from .backbone import GamerModel, GamerPreTrainedModel
from .configuration_gamer import FIRST_BEHAVIOR, PAD
from .configuration_ranking import GamerRankingConfig
from .loss import IGNORED_LABEL
from .token_layout import NO_LEVEL, TokenLayout, session_ranks

MASK = 1
NOTHING = -1


class GamerRankingModel(GamerModel):
    """GAMER's decoder over two vocabularies: which one a token id is of, its place says.

    Args:
        config: A configuration with a vocabulary.

    Raises:
        ValueError: If the configuration has no vocabulary.
    """

    config_class = GamerRankingConfig
    config: GamerRankingConfig

    def __init__(self, config: GamerRankingConfig) -> None:
        super().__init__(config)
        self.embed_behaviors = nn.Embedding(FIRST_BEHAVIOR + config.num_behaviors, config.hidden_size, PAD)
        self.post_init()

    def embed(self, input_ids: Tensor, layout: TokenLayout, event_times: Tensor | None = None) -> Tensor:
        """Return the first layer's input `[batch, tokens, width]`; `event_times` are not read."""
        is_code = layout.places < self.config.num_levels
        codes = self.embed_tokens(torch.where(is_code, input_ids, PAD))
        return codes + self.embed_behaviors(torch.where(is_code, PAD, input_ids))  # the other one is padding, so zero


class GamerForRanking(GamerPreTrainedModel):
    """GAMER with a head for codes and a head for behaviors: predicts how a shown item ends.

    Args:
        config: A configuration with a vocabulary.

    Raises:
        ValueError: If the configuration has no vocabulary.

    Example:
        >>> config = GamerRankingConfig(
        ...     hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        ...     head_dim=8, codebook_sizes=[4, 4], behavior_levels=[0, 1],
        ... )
        >>> model = GamerForRanking(config).eval()
        >>> history = {"codes": torch.tensor([[[0, 3], [2, 2]]]), "behaviors": torch.tensor([[0, 1]])}
        >>> candidates = torch.tensor([[[0, 3], [1, 1], [2, 0]]])
        >>> output = model(**history, sessions=torch.tensor([[1, 2]]), candidate_codes=candidates)
        >>> output.logits.sigmoid().shape  # the probability of a conversion
        torch.Size([1, 3])
    """

    config_class = GamerRankingConfig
    config: GamerRankingConfig
    main_input_name = "codes"
    _tied_weights_keys = {"code_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: GamerRankingConfig) -> None:
        vocab_size = config.require_vocabulary()
        super().__init__(config)
        self.model = GamerRankingModel(config)
        self.code_head = nn.Linear(config.hidden_size, vocab_size, bias=False)
        self.behavior_head = nn.Linear(config.hidden_size, config.num_behaviors)
        self.post_init()

    def forward(
        self,
        codes: torch.LongTensor,
        behaviors: torch.LongTensor,
        sessions: torch.LongTensor,
        candidate_codes: torch.LongTensor,
        labels: torch.LongTensor | None = None,
    ) -> SequenceClassifierOutput:
        """Return `logits`, the log-odds of a conversion per candidate `[batch, candidates]`, and with labels the loss.

        All candidates of a row belong to one session, after those of the history, and do not see each other. The loss
        is the mean cross-entropy of the behaviors, those of the history and those of the labels, plus
        `code_loss_weight` times that of all codes.

        Args:
            codes: Codes of the history's items, -1 where there is none, at either side `[batch, length, levels]`.
            behaviors: How each ended, ladder indices `[batch, length]`.
            sessions: Their sessions, from 0 and never falling along a row, ignored at padding `[batch, length]`.
            candidate_codes: Codes of the items asked about, -1 where there is none `[batch, candidates, levels]`.
            labels: How each candidate ended, -100 where there is no loss `[batch, candidates]`.

        Raises:
            ValueError: If the codes have another number of levels than the configuration.
        """
        self._check_codes(codes=codes, candidate_codes=candidate_codes)
        all_codes = torch.cat([codes, candidate_codes], dim=1)
        unknown = torch.full_like(candidate_codes[..., 0], NOTHING)
        known = torch.where(codes[..., 0] >= 0, behaviors, NOTHING)
        input_ids = self._token_ids(all_codes, torch.cat([known, unknown], dim=1))
        layout = self._layout(all_codes, torch.cat([known, unknown], dim=1), _with_asked(sessions, known, unknown))
        outputs = self.model(input_ids, layout=layout, position_ids=self._positions(layout), use_cache=False)
        states = outputs.last_hidden_state.unflatten(1, (-1, self.config.tokens_per_item))
        endings = self.behavior_head(states[:, :, self.config.num_levels])
        loss = None
        if labels is not None:
            targets = torch.cat([torch.where(known >= 0, known, IGNORED_LABEL), labels], dim=1)
            loss = _mean_loss(endings, targets) + self.config.code_loss_weight * self._code_loss(
                states, all_codes, known
            )
        return SequenceClassifierOutput(loss=loss, logits=self._log_odds(endings[:, codes.shape[1] :]))

    def _check_codes(self, **given: Tensor) -> None:
        for name, codes in given.items():
            if codes.ndim != 3 or codes.shape[2] != self.config.num_levels:
                raise ValueError(
                    f"`{name}` must be [batch, items, {self.config.num_levels}], one code per level, got "
                    f"{tuple(codes.shape)}. Take the codes of the item tokenizer that the configuration is of."
                )

    def _token_ids(self, codes: Tensor, behaviors: Tensor) -> Tensor:
        """Return the token ids of interactions, whose behavior may be unknown `[batch, items * tokens per item]`."""
        masks = torch.where(codes[..., :1] >= 0, MASK, PAD)
        known = torch.where(behaviors >= 0, behaviors + FIRST_BEHAVIOR, PAD)
        return torch.cat([self._code_ids(codes), masks, known[..., None]], dim=2).flatten(1)

    def _code_ids(self, codes: Tensor) -> Tensor:
        offsets = torch.tensor(self.config.level_offsets, device=codes.device)
        return torch.where(codes >= 0, codes + offsets, PAD)

    def _layout(self, codes: Tensor, behaviors: Tensor, sessions: Tensor) -> TokenLayout:
        """Return what the tokens are. Masks count as not real, which hides them as keys and lets them see."""
        num_levels, per_item = self.config.num_levels, self.config.tokens_per_item
        is_item, is_known = codes[..., 0] >= 0, behaviors >= 0
        levels = behaviors.new_tensor([*self.config.behavior_levels, NO_LEVEL])[behaviors]  # the last one for unknown
        above_all = torch.where(is_item, max(self.config.behavior_levels) + 1, NO_LEVEL)

        def tokens(of_codes: Tensor, of_mask: Tensor, of_behavior: Tensor) -> Tensor:
            columns = [
                of_codes[..., None].expand(*of_codes.shape, num_levels),
                of_mask[..., None],
                of_behavior[..., None],
            ]
            return torch.cat(columns, dim=2).flatten(1)

        nothing, nowhere = torch.zeros_like(behaviors), torch.full_like(behaviors, NO_LEVEL)
        real = tokens(is_item, torch.zeros_like(is_item), is_known)
        batch_size, num_items = behaviors.shape
        return TokenLayout(
            places=torch.arange(per_item, device=codes.device).repeat(batch_size, num_items),
            items=torch.arange(num_items, device=codes.device).repeat_interleave(per_item).expand(batch_size, -1),
            behaviors=tokens(nothing, nothing, torch.where(is_known, behaviors + 1, 0)),
            levels=tokens(nowhere, above_all, levels),
            sessions=session_ranks(sessions.repeat_interleave(per_item, dim=1), real),
            real=real,
        )

    def _positions(self, layout: TokenLayout) -> Tensor:
        """Return rotary positions: all items of a session share them, and a mask has that of its behavior."""
        num_levels = self.config.num_levels
        assert layout.sessions is not None
        return layout.sessions * (num_levels + 1) + layout.places.clamp(max=num_levels)

    def _code_loss(self, states: Tensor, codes: Tensor, known: Tensor) -> Tensor:
        """Return the mean cross-entropy of each code after the one before, or after the interaction before."""
        num_levels, length = self.config.num_levels, known.shape[1]
        ids = self._code_ids(codes)
        labels = torch.where(ids == PAD, IGNORED_LABEL, ids)
        of_first = torch.where((known[:, :-1] >= 0)[..., None], labels[:, 1:length, :1], IGNORED_LABEL)
        asked = [states[:, :, : num_levels - 1].flatten(1, 2), states[:, : max(length - 1, 0), -1]]
        targets = torch.cat([labels[:, :, 1:].flatten(1), of_first.flatten(1)], dim=1)
        kept = targets != IGNORED_LABEL
        return _mean_loss(self.code_head(torch.cat(asked, dim=1)[kept]), targets[kept])

    def _log_odds(self, endings: Tensor) -> Tensor:
        is_conversion = torch.tensor(self.config.conversions, device=endings.device)
        return endings[..., is_conversion].logsumexp(dim=-1) - endings[..., ~is_conversion].logsumexp(dim=-1)


def _with_asked(sessions: Tensor, known: Tensor, unknown: Tensor) -> Tensor:
    """Return the sessions of history and candidates; the candidates' is the next one `[batch, length + candidates]`."""
    last = pad(torch.where(known >= 0, sessions, NOTHING), (1, 0), value=NOTHING).amax(dim=1, keepdim=True)
    return torch.cat([sessions, (last + 1).expand_as(unknown)], dim=1)


def _mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the labels that bear loss, 0 if none does."""
    number = (labels != IGNORED_LABEL).sum().clamp(min=1)
    flat = logits.flatten(0, -2).float()
    return cross_entropy(flat, labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum") / number
