"""RQ-VAE item codes: an autoencoder whose middle is written as one code per level.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023; the variants come from LC-Rec (Zheng et
al., ICDE 2024: Sinkhorn balancing) and SoundStream (Zeghidour et al., 2021: k-means start, running means, dead codes).
Unlike the RQ-VAE of GAMER's release: a smaller network, a plain autoencoder before the k-means start, no clustering
loss, and no collision is left.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genrec.item_tokenizers.residual import ResidualTokenizer
from genrec.item_tokenizers.rqvae_network import RQVAENetwork
from genrec.item_tokenizers.rqvae_training import RQVAETrainer, RQVAETraining
from genrec.item_tokenizers.sizes import AUTO, CodebookSizes, choose_codebook_sizes

TRAINING_FIELDS = tuple(RQVAETraining.__dataclass_fields__)


class RQVAETokenizer(ResidualTokenizer):
    """Codes by a residual-quantised variational autoencoder.

    The same vectors, seed and machine give the same codes.

    Args:
        codebook_sizes: One size per level, or `"auto"`: see `genrec.item_tokenizers.sizes.auto_codebook_sizes`.
        seed: Of weights, batches, k-means start and restarts.
        hidden_dims: Widths of the encoder's hidden layers; the decoder mirrors them.
        latent_dim: Dimensions of the codebooks.
        codebook_update: `"ema"` moves each code to the running mean of what it describes; `"gradient"` learns codebooks
            with the network.
        num_steps: Optimizer steps. Raise it for catalogs of a million items and more.
        batch_size: Items per step.
        learning_rate: At the start; it falls linearly.
        weight_decay: Of AdamW.
        warmup_rate: Share of the steps that train the autoencoder without codes, before the k-means start.
        commitment_weight: Pull of the encoder towards the codes.
        ema_decay: Share of the past that a running mean keeps per step.
        restart_every: Every so many steps a code that no item of these steps chose moves to a random residual; 0 never.
        sinkhorn_levels: Levels (from 0, or from -1 backwards) whose training assignments are balanced.
        sinkhorn_epsilon: Smaller follows the distances more and balances less exactly.
        device: Where to train; None means a CUDA device if there is one, else the CPU. Codes are assigned on the CPU.
    """

    def __init__(
        self,
        codebook_sizes: CodebookSizes = AUTO,
        *,
        seed: int = 0,
        hidden_dims: Sequence[int] = (256, 128),
        latent_dim: int = 32,
        codebook_update: str = "ema",
        num_steps: int = 1_000,
        batch_size: int = 512,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_rate: float = 0.2,
        commitment_weight: float = 0.25,
        ema_decay: float = 0.95,
        restart_every: int = 50,
        sinkhorn_levels: Sequence[int] = (),
        sinkhorn_epsilon: float = 0.003,
        device: str | None = None,
    ) -> None:
        super().__init__(
            codebook_sizes=codebook_sizes if isinstance(codebook_sizes, str) else list(codebook_sizes),
            seed=seed,
            hidden_dims=list(hidden_dims),
            latent_dim=latent_dim,
            codebook_update=codebook_update,
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_rate=warmup_rate,
            commitment_weight=commitment_weight,
            ema_decay=ema_decay,
            restart_every=restart_every,
            sinkhorn_levels=list(sinkhorn_levels),
            sinkhorn_epsilon=sinkhorn_epsilon,
            device=device,
        )
        self._training = RQVAETraining(**{name: self.settings[name] for name in TRAINING_FIELDS})
        self._network: RQVAENetwork | None = None

    def _learn(self, inputs: Tensor) -> list[int]:
        sizes = choose_codebook_sizes(self.settings["codebook_sizes"], len(inputs))
        device = self.settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        network = self._new_network(inputs.shape[1], sizes).to(device)
        RQVAETrainer(network, inputs, self._training, self.settings["seed"]).train()
        self._use(network.cpu())
        return sizes

    def _new_network(self, input_dim: int, sizes: Sequence[int]) -> RQVAENetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings["seed"])
            return RQVAENetwork(input_dim, self.settings["hidden_dims"], self.settings["latent_dim"], sizes)

    def _use(self, network: RQVAENetwork) -> None:
        self._network = network.eval()
        self.codebooks = [codebook.detach() for codebook in network.codebooks]
        self.center = network.mean

    def _project(self, vectors: Tensor) -> Tensor:
        assert self._network is not None
        return self._network.encode(vectors)

    def _unproject(self, points: Tensor) -> Tensor:
        assert self._network is not None
        return self._network.decode(points)

    def _tensors(self) -> dict[str, Tensor]:
        assert self._network is not None
        return {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}

    def _restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        state: dict[str, Any] = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
        sizes = [len(tensor) for name, tensor in sorted(state.items(), key=_level) if name.startswith("codebooks.")]
        network = self._new_network(len(state["mean"]), sizes)
        network.load_state_dict(state)
        self._use(network)


def _level(entry: tuple[str, Tensor]) -> int:
    name = entry[0]
    return int(name.split(".")[1]) if name.startswith("codebooks.") else -1
