"""Fits an RQ-VAE: plain autoencoder first, then a k-means start, then both together with dead codes restarted.

The vectors lie on the device, batches are drawn there and losses stay there, so no step waits for the host. What the
host has to know (progress, collapsed codebooks, dead codes) it asks for every so many steps.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from genrec.item_tokenizers.quantizers import kmeans, nearest_codes, perplexity
from genrec.item_tokenizers.rqvae_network import Balancing, RQVAENetwork

logger = logging.getLogger(__name__)

COLLAPSED = 0.1
START_VECTORS_PER_CODE = 64
STEPS_PER_CHECK = 50


@dataclass(frozen=True)
class RQVAETraining:
    """How to fit; the meaning of each field stands at `RQVAETokenizer`."""

    codebook_update: str = "ema"
    num_steps: int = 1_000
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_rate: float = 0.2
    commitment_weight: float = 0.25
    ema_decay: float = 0.95
    restart_every: int = 50
    sinkhorn_levels: Sequence[int] = ()
    sinkhorn_epsilon: float = 0.003

    def __post_init__(self) -> None:
        if self.codebook_update not in ("ema", "gradient"):
            raise ValueError(f"`codebook_update` must be 'ema' or 'gradient', got {self.codebook_update!r}.")
        if self.num_steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"`num_steps` and `batch_size` must be at least 1, got {self.num_steps} and {self.batch_size}."
            )
        if self.restart_every < 0:
            raise ValueError(f"`restart_every` must be a number of steps, or 0 for never, got {self.restart_every}.")


class CodebookCare:
    """Keeps codebooks alive and, with EMA, moves them: each code follows the mean of what it describes.

    Args:
        codebooks: One `[codes, latent_dim]` per level; changed in place.
        ema_decay: Share of the past kept per step; None leaves moving to the optimizer.
        generator: Draws replacements for dead codes.
    """

    def __init__(self, codebooks: Sequence[Tensor], ema_decay: float | None, generator: torch.Generator) -> None:
        self.codebooks = [codebook.data for codebook in codebooks]
        self.ema_decay = ema_decay
        self.generator = generator
        self.seen = [torch.zeros(len(codebook), device=codebook.device) for codebook in self.codebooks]
        self.recent = [torch.zeros_like(counts) for counts in self.seen]
        self.weights = [torch.ones_like(counts) for counts in self.seen]
        self.sums = [codebook.clone() for codebook in self.codebooks]

    def observe(self, residuals: Sequence[Tensor], codes: Sequence[Tensor]) -> None:
        """Count a batch's codes and, with EMA, move each code towards the mean of its residuals."""
        for level, (residual, chosen) in enumerate(zip(residuals, codes, strict=True)):
            # A product is repeatable and asks nothing of the host, unlike `index_add_` and `bincount` on CUDA.
            every_code = torch.arange(len(self.seen[level]), device=chosen.device)
            is_member = (chosen == every_code[:, None]).to(residual.dtype)  # [codes, batch]
            counts = is_member.sum(dim=1)
            self.seen[level] += counts
            self.recent[level] += counts
            if self.ema_decay is not None:
                self._move(level, is_member @ residual, counts)

    def restart_dead(self, residuals: Sequence[Tensor]) -> None:
        """Move every code unseen since the last call onto a random residual of this batch, and forget the counts."""
        for level, residual in enumerate(residuals):
            dead = torch.nonzero(self.seen[level] == 0).flatten()
            drawn = torch.randint(len(residual), (len(dead),), generator=self.generator).to(dead.device)
            self.codebooks[level][dead] = residual[drawn]
            self.sums[level][dead], self.weights[level][dead] = residual[drawn], 1.0
            self.seen[level].zero_()

    def perplexity_rates(self) -> list[float]:
        """Return the perplexity of the codes seen since the last call, as a share of each codebook's size."""
        rates = [perplexity(counts.cpu()) / len(counts) for counts in self.recent]
        for counts in self.recent:
            counts.zero_()
        return rates

    def _move(self, level: int, sums: Tensor, counts: Tensor) -> None:
        keep = self.ema_decay or 0.0
        self.weights[level].mul_(keep).add_(counts, alpha=1 - keep)
        self.sums[level].mul_(keep).add_(sums, alpha=1 - keep)
        self.codebooks[level].copy_(self.sums[level] / self.weights[level].clamp(min=1e-6)[:, None])


class RQVAETrainer:
    """Fits a network in place.

    Args:
        network: Untrained, on the device to train on.
        vectors: `[items, dim]` of any floating type; moved to the network's device as they are.
        training: How to fit.
        seed: Of batches, k-means start and restarts.
    """

    def __init__(self, network: RQVAENetwork, vectors: Tensor, training: RQVAETraining, seed: int) -> None:
        device = network.mean.device
        self.network = network
        self.vectors = vectors.to(device)
        self.training = training
        self.generator = torch.Generator().manual_seed(seed)
        self.batches = self.generator if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
        self.balancing = Balancing(training.sinkhorn_levels, training.sinkhorn_epsilon, len(network.codebooks))
        self.optimizer = torch.optim.AdamW(
            self._parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1.0, 0.05, training.num_steps)
        self.care: CodebookCare | None = None
        self.collapsed: set[int] = set()
        self._losses: list[Tensor] = []

    @property
    def losses(self) -> list[float]:
        """The loss of every step so far; waits for the device."""
        return torch.stack(self._losses).tolist() if self._losses else []

    def train(self) -> None:
        """Run all steps, with a progress bar on a terminal."""
        self.network.normalize_like(self.vectors)
        warmup = int(self.training.warmup_rate * self.training.num_steps)
        with tqdm(total=self.training.num_steps, desc="RQ-VAE", unit="step", disable=None) as progress:
            for step in range(self.training.num_steps):
                if step == warmup:
                    self.care = self._start_codebooks()
                self.step(self.draw(self.training.batch_size))
                if self.care is not None and (step + 1) % STEPS_PER_CHECK == 0:
                    rates = self._check_collapse(self.care)
                    loss = float(self._losses[-1])
                    progress.set_postfix(loss=f"{loss:.4f}", codes=" ".join(f"{rate:.0%}" for rate in rates))
                progress.update()

    def _parameters(self) -> list[torch.nn.Parameter]:
        network = self.network
        parameters = [*network.encoder.parameters(), *network.decoder.parameters()]
        return parameters + (list(network.codebooks) if self.training.codebook_update == "gradient" else [])

    def draw(self, num_vectors: int) -> Tensor:
        """Return random vectors, with repeats, `[num_vectors, dim]` float32, drawn where they lie."""
        rows = torch.randint(len(self.vectors), (num_vectors,), generator=self.batches, device=self.vectors.device)
        return self.vectors[rows].float()

    @torch.no_grad()
    def _start_codebooks(self) -> CodebookCare:
        """Start each codebook with a k-means of what the levels before leave over."""
        sizes = [len(codebook) for codebook in self.network.codebooks]
        sample = self.vectors
        if len(sample) > START_VECTORS_PER_CODE * max(sizes):
            rows = torch.randperm(len(sample), generator=self.generator)[: START_VECTORS_PER_CODE * max(sizes)]
            sample = sample[rows]
        residual = self.network.encode(sample.float()).cpu()
        for codebook, size in zip(self.network.codebooks, sizes, strict=True):
            centres = kmeans(residual, size, self.generator)
            codebook.copy_(centres)
            residual = residual - centres[nearest_codes(residual, centres)]
        keep = self.training.ema_decay if self.training.codebook_update == "ema" else None
        return CodebookCare(list(self.network.codebooks), keep, self.generator)

    def step(self, batch: Tensor) -> None:
        """Take one optimizer step on a batch `[batch, dim]`, without waiting for the device."""
        latent = self.network.encode(batch)
        loss = self._autoencoder_loss(batch, latent) if self.care is None else self._quantized_loss(batch, latent)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self._losses.append(loss.detach())

    def _autoencoder_loss(self, batch: Tensor, latent: Tensor) -> Tensor:
        return functional.mse_loss(self.network.decode(latent) / self.network.scale, batch / self.network.scale)

    def _quantized_loss(self, batch: Tensor, latent: Tensor) -> Tensor:
        """Return the reconstruction loss through the codes, and the pull between encoder and codebooks."""
        residuals, codes = self.network.quantize(latent, self.balancing)
        chosen = [codebook[picked] for codebook, picked in zip(self.network.codebooks, codes, strict=True)]
        described = torch.stack(chosen).sum(dim=0).detach()
        loss = self._autoencoder_loss(batch, latent + (described - latent).detach())
        for residual, code in zip(residuals, chosen, strict=True):
            loss = loss + self.training.commitment_weight * functional.mse_loss(residual, code.detach())
            if self.training.codebook_update == "gradient":
                loss = loss + functional.mse_loss(code, residual.detach())
        self._care_for_codebooks([residual.detach() for residual in residuals], codes)
        return loss

    def _care_for_codebooks(self, residuals: list[Tensor], codes: list[Tensor]) -> None:
        assert self.care is not None
        self.care.observe(residuals, codes)
        every = self.training.restart_every
        if every and (len(self._losses) + 1) % every == 0:
            self.care.restart_dead(residuals)

    def _check_collapse(self, care: CodebookCare) -> list[float]:
        """Return each level's perplexity rate since the last check, and warn once of a level that has collapsed."""
        rates = care.perplexity_rates()
        for level, rate in enumerate(rates):
            if rate < COLLAPSED and level not in self.collapsed:
                self.collapsed.add(level)
                logger.warning(
                    "Codebook %d has collapsed: its codes are as varied as %.0f %% of its size. Use smaller codebooks, "
                    "`sinkhorn_levels=[%d]`, a smaller `restart_every` or more varied embeddings.",
                    level + 1,
                    100 * rate,
                    level,
                )
        return rates
