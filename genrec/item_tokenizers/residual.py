"""What RQ-VAE and residual k-means share: codes by residual quantisation of the items' vectors."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.embedders.base import check_embeddings
from genrec.item_tokenizers.base import ItemTokenizer
from genrec.item_tokenizers.quantizers import VECTORS_PER_CHUNK, reconstruct, residual_codes, squared_distances


class ResidualTokenizer(ItemTokenizer):
    """Codes are the nearest entries of one codebook per level, each describing what the levels before left over.

    A subclass fills `codebooks` and `center` in `_learn`, and may quantise in another space than the vectors'.

    Attributes:
        codebooks: One `[codes, dim]` float32 per level.
        center: Mean of the vectors that were learned from, `[dim]` float32.
    """

    codebooks: list[Tensor]
    center: Tensor

    def _project(self, vectors: Tensor) -> Tensor:
        """Return vectors in the space of the codebooks, float32."""
        return vectors.float()

    def _unproject(self, points: Tensor) -> Tensor:
        """Return points of the codebooks' space as vectors."""
        return points

    def _read_inputs(self, embeddings: Any, item_ids: np.ndarray) -> Tensor:
        vectors = check_vectors(embeddings, item_ids)
        if self._fitted_table is not None and vectors.shape[1] != len(self.center):
            raise ValueError(
                f"New items need vectors of the {len(self.center)} dimensions the codebooks were learned from, got "
                f"{vectors.shape[1]}. Embed them with the same embedder."
            )
        return vectors

    @torch.no_grad()
    def _ask(self, inputs: Tensor) -> Tensor:
        chunks = inputs.split(VECTORS_PER_CHUNK)
        return torch.cat([residual_codes(self._project(chunk), self.codebooks) for chunk in chunks])

    @torch.no_grad()
    def _costs(self, inputs: Tensor, codes: Tensor, level: int) -> Tensor:
        residual = self._project(inputs)
        if level > 0:
            residual = residual - reconstruct(codes[:, :level], self.codebooks[:level])
        return squared_distances(residual, self.codebooks[level])

    @torch.no_grad()
    def _errors(self, inputs: Tensor, codes: Tensor) -> Tensor:
        errors = torch.empty(len(inputs), 2)
        for start in range(0, len(inputs), VECTORS_PER_CHUNK):
            part = slice(start, start + VECTORS_PER_CHUNK)
            errors[part] = self._errors_of(inputs[part], codes[part])
        return errors

    def _errors_of(self, vectors: Tensor, codes: Tensor) -> Tensor:
        lost = vectors - self._unproject(reconstruct(codes, self.codebooks))
        return torch.stack([lost.square().sum(dim=1), (vectors - self.center).square().sum(dim=1)], dim=1)

    def _tensors(self) -> dict[str, Tensor]:
        books = {f"codebooks.{level}": codebook for level, codebook in enumerate(self.codebooks)}
        return {"center": self.center} | books

    def _restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.center = tensors["center"]
        num_levels = sum(name.startswith("codebooks.") for name in tensors)
        self.codebooks = [tensors[f"codebooks.{level}"] for level in range(num_levels)]


def check_vectors(embeddings: Any, item_ids: np.ndarray) -> Tensor:
    """Return embeddings as a tensor `[items, dim]`, without a copy of float32 or half-precision arrays and tensors.

    A memory map stays one. What is neither becomes float32.

    Raises:
        ValueError: If there is not one vector per item or a value is not finite; the message names the item.
    """
    if embeddings is None:
        raise ValueError("`embeddings` must hold one vector per item, got None. Make them with an embedder.")
    vectors = _half_precision(embeddings)
    if vectors is not None and vectors.ndim == 2 and len(vectors) == len(item_ids) and _is_finite(vectors):
        return vectors
    array = embeddings.detach().cpu().float().numpy() if isinstance(embeddings, Tensor) else embeddings
    return _as_tensor(check_embeddings(array, len(item_ids), item_ids))


def _half_precision(embeddings: Any) -> Tensor | None:
    """Return half-precision embeddings as a tensor on the CPU, None for any other."""
    if isinstance(embeddings, np.ndarray) and embeddings.dtype == np.float16:
        return _as_tensor(np.ascontiguousarray(embeddings))
    if isinstance(embeddings, Tensor) and embeddings.dtype in (torch.float16, torch.bfloat16):
        return embeddings.detach().cpu()
    return None


def _is_finite(vectors: Tensor) -> bool:
    return all(bool(chunk.isfinite().all()) for chunk in vectors.split(VECTORS_PER_CHUNK)) and vectors.shape[1] > 0


def _as_tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing writes to it
        return torch.from_numpy(array)
