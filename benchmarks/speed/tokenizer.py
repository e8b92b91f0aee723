"""Fitting item tokenizers: residual k-means, the RQ-VAE's epochs, and the repair of colliding codes.

    python -m benchmarks.speed.tokenizer [--quick] [--large] [--device cuda]

Residual k-means stands beside faiss's residual quantizer, trained and applied as it comes but with `max_beam_size=1`:
codes of the nearest centre at each level are what a tokenizer assigns, and it is faiss's fastest setting. The timed
call of ours is the whole `fit`, repair and report included, whose codes are then one to one; faiss only trains and
encodes. `faiss_rq_beam5` is faiss without that setting. `--large` takes 1.3 million items; their vectors are 4 GB.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.baselines.repair_loop import repair_by_loop
from benchmarks.speed.harness import Contender, Results, Settings, peak_memory_mb, run
from genrec.item_tokenizers import RQKMeansTokenizer
from genrec.item_tokenizers.collisions import repair_codes
from genrec.item_tokenizers.quantizers import squared_distances
from genrec.item_tokenizers.rqvae_network import RQVAENetwork
from genrec.item_tokenizers.rqvae_training import RQVAETrainer, RQVAETraining

HAS_FAISS = importlib.util.find_spec("faiss") is not None
NUM_LEVELS, DIM = 4, 768
LARGE = 1_300_000
WORSE_ALLOWED = 1.005  # our error over faiss's
TOPICS, SUBTOPICS = 300, 20
ROWS_PER_CHUNK = 16_384
RQVAE_BATCH = 512


def text_like_vectors(num_items: int, dim: int, seed: int) -> Tensor:
    """Return unit vectors in skewed topics and subtopics, with a spectrum that falls as that of text embeddings does.

    Args:
        num_items: How many.
        dim: Dimensions.
        seed: Decides them.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, dim, generator=generator)

    spectrum = torch.arange(1.0, dim + 1) ** -0.5
    rotation = torch.linalg.qr(normal(dim)).Q
    topics, subtopics = normal(TOPICS) * spectrum, 0.6 * normal(TOPICS * SUBTOPICS) * spectrum
    odds = torch.arange(1.0, TOPICS + 1) ** -0.7
    topic = torch.multinomial(odds, num_items, replacement=True, generator=generator)
    subtopic = SUBTOPICS * topic + torch.randint(SUBTOPICS, (num_items,), generator=generator)
    vectors = torch.empty(num_items, dim)
    for rows in torch.arange(num_items).split(ROWS_PER_CHUNK):
        own = (0.8 * normal(len(rows)) + 0.3) * spectrum
        chunk = (topics[topic[rows]] + subtopics[subtopic[rows]] + own) @ rotation
        vectors[rows] = chunk / chunk.norm(dim=1, keepdim=True)
    return vectors


def fit_ours(vectors: Tensor, size: int, device: str) -> RQKMeansTokenizer:
    """Return a fitted tokenizer."""
    tokenizer = RQKMeansTokenizer([size] * NUM_LEVELS, device=device)
    return tokenizer.fit(vectors, np.arange(len(vectors)), "view,cart,buy")


def fit_faiss(vectors: Tensor, size: int, beam: int) -> tuple[Any, np.ndarray]:
    """Return a trained residual quantizer and the codes of all vectors."""
    import faiss

    quantizer = faiss.ResidualQuantizer(vectors.shape[1], NUM_LEVELS, size.bit_length() - 1)
    quantizer.max_beam_size = beam
    quantizer.train(vectors.numpy())
    return quantizer, quantizer.compute_codes(vectors.numpy())


def lost_share(vectors: Tensor, quantizer: Any, codes: np.ndarray) -> float:
    """Return the share of the vectors' variance that faiss's codes lose; `CodeReport.reconstruction_error` of ours."""
    center = vectors.mean(dim=0)
    lost = total = 0.0
    for start in range(0, len(vectors), ROWS_PER_CHUNK):
        chunk = vectors[start : start + ROWS_PER_CHUNK]
        decoded = torch.from_numpy(quantizer.decode(codes[start : start + ROWS_PER_CHUNK]))
        lost += float((chunk - decoded).square().sum())
        total += float((chunk - center).square().sum())
    return lost / total


def measure(settings: Settings) -> Results:
    """Compare residual k-means, the RQ-VAE and repair with what the field does."""
    results = Results(settings)
    small, middle = settings.choose(((17_000, DIM, 256), (200_000, DIM, 256)), ((3_000, 96, 32), (6_000, 96, 32)))
    _residual_kmeans(results, *small)
    for sizes in (small, middle):
        _memory_of_fit(results, *sizes)
    for sizes in [middle, (LARGE, DIM, 256)] if settings.large else []:  # faiss alone takes many minutes
        _residual_kmeans(results, *sizes)
    if settings.large:
        _memory_of_fit(results, LARGE, DIM, 256)
    _rqvae_epoch(results, *settings.choose((17_000, DIM, 3), (2_000, 96, 1)))
    for num_items in settings.choose([100_000, 1_000_000], [10_000]):
        _repair(results, num_items)
    return results


def _residual_kmeans(results: Results, num_items: int, dim: int, size: int) -> None:
    settings = results.settings
    vectors = text_like_vectors(num_items, dim, settings.seed)
    contenders = [Contender("genrec", lambda: fit_ours(vectors, size, settings.device))]
    if HAS_FAISS:
        import faiss

        faiss.omp_set_num_threads(settings.threads)
        contenders.append(Contender("faiss_rq", lambda: fit_faiss(vectors, size, beam=1)))
        if num_items <= 20_000:  # its training takes five times as long
            contenders.append(Contender("faiss_rq_beam5", lambda: fit_faiss(vectors, size, beam=5)))
    table = f"residual k-means {num_items}"

    def check(outputs: dict[str, Any]) -> None:
        ours = outputs.pop("genrec").report().reconstruction_error
        results.add(table, "genrec", reconstruction_error=ours)
        for name, output in outputs.items():
            theirs = lost_share(vectors, *output)
            results.add(table, name, reconstruction_error=theirs)
            assert ours <= WORSE_ALLOWED * theirs, (
                f"Our codes lose {ours:.4f} of the variance, those of {name} {theirs:.4f}."
            )

    rows = results.compare(
        table,
        contenders,
        baseline="faiss_rq" if HAS_FAISS else "genrec",
        work=num_items,
        unit="items",
        repeats=3,
        max_seconds=60,
        check=check,
    )
    for name in rows.keys() - {"genrec"}:
        results.ratio(f"tokenizer/{name}@{num_items}", rows[name].median / rows["genrec"].median)


def _memory_of_fit(results: Results, num_items: int, dim: int, size: int) -> None:
    settings = results.settings
    peak = peak_memory_mb(_prepared_fit, num_items, dim, size, settings.seed, settings.device, device=settings.device)
    figures = {"vectors_mb": 4e-6 * num_items * dim, "peak_mb_above_vectors": peak}
    results.add(f"residual k-means {num_items}", "genrec", **figures)


def _prepared_fit(num_items: int, dim: int, size: int, seed: int, device: str) -> Callable[[], Any]:
    """Return a fit whose vectors are there already, for the process that measures memory."""
    fit_ours(text_like_vectors(16 * size, dim, seed), size, device)
    vectors = text_like_vectors(num_items, dim, seed)
    return lambda: fit_ours(vectors, size, device)


def _rqvae_epoch(results: Results, num_items: int, dim: int, repeats: int) -> None:
    """Time an epoch of training with codes, batches from the device beside batches from a `DataLoader`."""
    settings = results.settings
    vectors = text_like_vectors(num_items, dim, settings.seed)
    num_steps = -(-num_items // RQVAE_BATCH)
    ours, theirs = (_warm_trainer(vectors, settings) for _ in range(2))
    loader = DataLoader(TensorDataset(vectors), RQVAE_BATCH, shuffle=True)

    def by_device() -> float:
        for _ in range(num_steps):
            ours.step(ours.draw(RQVAE_BATCH))
        return float(np.mean(ours.losses[-num_steps:]))

    def by_loader() -> float:
        losses = []
        for (batch,) in loader:
            theirs.step(batch.to(settings.device))
            losses.append(theirs.losses[-1])
        return float(np.mean(losses))

    def check(outputs: dict[str, float]) -> None:
        first, second = outputs.values()
        assert abs(first - second) < 0.05 * first, f"Losses after the same steps differ: {outputs}."

    results.compare(
        f"rqvae epoch {num_items}",
        [Contender("genrec", by_device), Contender("dataloader", by_loader)],
        baseline="dataloader",
        work=num_items,
        unit="items",
        repeats=3 * repeats,
        max_seconds=60,
        check=check,
        ratio=f"tokenizer/rqvae_dataloader@{num_items}",
    )


def _warm_trainer(vectors: Tensor, settings: Settings) -> RQVAETrainer:
    """Return a trainer past its k-means start."""
    torch.manual_seed(settings.seed)
    network = RQVAENetwork(vectors.shape[1], (256, 128), 32, [64] * NUM_LEVELS).to(settings.device)
    training = RQVAETraining(num_steps=20, batch_size=RQVAE_BATCH, warmup_rate=0.5)
    trainer = RQVAETrainer(network, vectors, training, settings.seed)
    trainer.train()
    return trainer


def _repair(results: Results, num_items: int) -> None:
    """Time the repair of codes of which many collide; all prefixes have room."""
    raw, costs = _colliding_codes(num_items, results.settings.seed)
    rows = results.compare(
        f"repair {num_items}",
        [
            Contender("genrec", lambda: repair_codes(raw, [256] * raw.shape[1], costs)[0]),
            Contender("repair_loop", lambda: repair_by_loop(raw, 256, costs)),
        ],
        baseline="repair_loop",
        work=num_items,
        unit="items",
        repeats=3,
        max_seconds=60,
        check=_check_codes,
    )
    results.ratio(f"tokenizer/repair_loop@{num_items}", rows["genrec"].ratio or 0.0)


def _colliding_codes(
    num_items: int, seed: int, dim: int = 32
) -> tuple[Tensor, Callable[[Tensor, Tensor, int], Tensor]]:
    """Return codes `[items, 3]`, about 128 items to a prefix and mostly on its first twenty codes, and distances."""
    generator = torch.Generator().manual_seed(seed)
    prefixes = torch.randint(num_items // 128, (num_items,), generator=generator)
    last = (8 * torch.randn(num_items, generator=generator).abs()).long().clamp(max=255)
    codebook = torch.randn(256, dim, generator=generator)
    vectors = codebook[last] + torch.randn(num_items, dim, generator=generator)
    raw = torch.stack([prefixes // 256, prefixes % 256, last], dim=1)
    return raw, lambda rows, codes, level: squared_distances(vectors[rows], codebook)


def _check_codes(outputs: dict[str, Tensor]) -> None:
    assert torch.equal(outputs["genrec"], outputs["repair_loop"]), "Repair and the loop give different codes."
    assert len(outputs["genrec"].unique(dim=0)) == len(outputs["genrec"]), "Repair left a collision."


if __name__ == "__main__":
    run("tokenizer", measure)
