import logging

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from genrec.item_tokenizers import RQVAETokenizer
from genrec.item_tokenizers.rqvae_network import Balancing, RQVAENetwork
from genrec.item_tokenizers.rqvae_training import CodebookCare, RQVAETrainer, RQVAETraining

TINY = {"hidden_dims": [16], "latent_dim": 4, "batch_size": 64, "learning_rate": 0.01}


def vectors_of(num_items=200, dim=10, seed=0):
    """Points around 8 centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(8, dim, generator=generator)
    return centres[torch.arange(num_items) % 8] + torch.randn(num_items, dim, generator=generator)


def fit(vectors=None, **settings):
    vectors = vectors_of() if vectors is None else vectors
    return RQVAETokenizer([8, 16], **(TINY | {"num_steps": 60} | settings)).fit(
        vectors, range(len(vectors)), "view,buy"
    )


def trainer_of(sizes=(8, 16), seed=0, **training):
    torch.manual_seed(seed)
    network = RQVAENetwork(10, [16], 4, sizes)
    return RQVAETrainer(
        network,
        vectors_of(),
        RQVAETraining(**({"num_steps": 40, "batch_size": 64, "learning_rate": 0.01} | training)),
        seed,
    )


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_training_lowers_the_reconstruction_error(codebook_update):
    errors = [
        fit(codebook_update=codebook_update, num_steps=steps).report().reconstruction_error for steps in (5, 50, 200)
    ]
    assert errors[2] < 0.5 * errors[0]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_both_updates_move_codebooks_towards_what_they_describe(codebook_update):
    """With the encoder's rate at 0 for the codes' sake, a shifted start must come back."""
    trainer = trainer_of(codebook_update=codebook_update, num_steps=150, restart_every=0)
    trainer.network.normalize_like(trainer.vectors)
    trainer.care = trainer._start_codebooks()
    for codebook in trainer.care.codebooks:
        codebook += 0.3
    for sums, codebook in zip(trainer.care.sums, trainer.care.codebooks, strict=True):
        sums.copy_(codebook)

    def distance():
        with torch.no_grad():
            latent = trainer.network.encode(trainer.vectors)
            residuals, codes = trainer.network.quantize(latent, trainer.balancing)
            return float(functional.mse_loss(residuals[-1], trainer.network.codebooks[-1][codes[-1]]))

    before = distance()
    for parameter in [*trainer.network.encoder.parameters(), *trainer.network.decoder.parameters()]:
        parameter.requires_grad_(False)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.02
    for _ in range(80):
        if codebook_update == "ema":
            with torch.no_grad():
                batch = trainer.draw(64)
                trainer.care.observe(*trainer.network.quantize(trainer.network.encode(batch), trainer.balancing))
        else:
            trainer.step(trainer.draw(64))
    assert distance() < 0.5 * before


def test_the_gradient_reaches_the_encoder_through_the_codes():
    trainer = trainer_of()
    trainer.network.normalize_like(trainer.vectors)
    trainer.care = trainer._start_codebooks()
    batch = trainer.vectors[:16]
    trainer._quantized_loss(batch, trainer.network.encode(batch)).backward()
    assert trainer.network.encoder[0].weight.grad.abs().sum() > 0
    assert all(codebook.grad is None for codebook in trainer.network.codebooks)


def test_the_loss_falls():
    trainer = trainer_of(num_steps=120, warmup_rate=0.0)
    trainer.train()
    assert len(trainer.losses) == 120
    assert sum(trainer.losses[-10:]) < 0.7 * sum(trainer.losses[:10])


WAITING = {"_local_scalar_dense", "nonzero", "bincount", "equal", "_unique2", "masked_select"}


class CallsThatWait(TorchDispatchMode):
    """Notes the operations whose result a CUDA device would have to tell the host before it could go on."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found |= {func.overloadpacket.__name__} & WAITING
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{"codebook_update": "ema"}, {"codebook_update": "gradient"}])
@pytest.mark.parametrize("sinkhorn_levels", [[], [0, 1]])
def test_no_step_waits_for_the_host(settings, sinkhorn_levels):
    trainer = trainer_of(sinkhorn_levels=sinkhorn_levels, warmup_rate=0.5, num_steps=4, **settings)
    trainer.train()
    for group in trainer.optimizer.param_groups:
        group["foreach"] = True  # as on a CUDA device
    with CallsThatWait() as calls:
        for _ in range(2):
            trainer.step(trainer.draw(64))
    # AdamW counts its steps on the host, so that reading its counter waits for nothing.
    assert calls.found <= {"_local_scalar_dense"}
    with CallsThatWait() as calls:
        trainer._quantized_loss(trainer.draw(64), trainer.network.encode(trainer.draw(64)))
    assert calls.found == set()
    assert len(trainer.losses) == 6


def test_vectors_lie_where_the_network_is():
    trainer = trainer_of()
    assert trainer.vectors.device == trainer.network.mean.device
    assert trainer.draw(5).shape == (5, 10)
    assert trainer.losses == []


def test_large_catalogs_are_normalised_in_chunks(monkeypatch):
    vectors, network = 3 + 2 * vectors_of(), RQVAENetwork(10, [], 10, [2])
    network.normalize_like(vectors)
    whole = network.mean.clone(), network.scale.clone()
    monkeypatch.setattr("genrec.item_tokenizers.rqvae_network.VECTORS_PER_CHUNK", 7)
    network.normalize_like(vectors)
    torch.testing.assert_close((network.mean, network.scale), whole)


def test_residuals_and_codes_of_the_network_are_those_of_residual_quantisation():
    network = RQVAENetwork(3, [], 2, [2, 2])
    network.codebooks[0].data = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    network.codebooks[1].data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    residuals, codes = network.quantize(torch.tensor([[11.0, 10.0], [0.0, 1.0]]), Balancing([], 0.1, 2))
    assert [code.tolist() for code in codes] == [[1, 0], [0, 1]]
    assert residuals[1].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_vectors_are_centred_and_scaled_and_come_back():
    network = RQVAENetwork(10, [], 10, [2])
    vectors = 50 + 7 * vectors_of()
    network.normalize_like(vectors)
    seen = (vectors - network.mean) / network.scale
    assert float(seen.mean()) == pytest.approx(0, abs=1e-4)
    assert float(seen.square().mean()) == pytest.approx(1, rel=1e-4)
    network.normalize_like(torch.ones(5, 10))
    assert float(network.scale) == 1


def test_scaling_the_vectors_changes_no_code():
    assert torch.equal(fit(vectors_of()).codes, fit(1024 * vectors_of()).codes)


def test_dead_codes_restart_on_residuals_of_the_batch():
    codebook = torch.tensor([[0.0], [100.0], [200.0]])
    care = CodebookCare([codebook], ema_decay=0.9, generator=torch.Generator().manual_seed(0))
    residual = torch.tensor([[0.1], [0.2], [0.3]])
    care.observe([residual], [torch.zeros(3, dtype=torch.long)])
    alive = codebook[0].clone()
    care.restart_dead([residual])
    assert torch.equal(codebook[0], alive)
    assert set(codebook[1:].flatten().tolist()) <= set(residual.flatten().tolist())
    assert torch.equal(care.sums[0][1:], codebook[1:])
    assert care.weights[0][1:].tolist() == [1.0, 1.0]


def test_codes_seen_since_the_last_restart_live_on():
    codebook = torch.tensor([[0.0], [1.0]])
    care = CodebookCare([codebook], ema_decay=None, generator=torch.Generator())
    for chosen in (0, 1):
        care.observe([torch.zeros(1, 1)], [torch.tensor([chosen])])
    care.restart_dead([torch.full((1, 1), 9.0)])
    assert codebook.flatten().tolist() == [0.0, 1.0]
    care.restart_dead([torch.full((1, 1), 9.0)])  # nothing was seen since
    assert codebook.flatten().tolist() == [9.0, 9.0]


def test_ema_follows_the_mean_of_what_a_code_describes():
    codebook = torch.tensor([[4.0]])
    care = CodebookCare([codebook], ema_decay=0.5, generator=torch.Generator())
    care.observe([torch.tensor([[1.0], [2.0]])], [torch.tensor([0, 0])])
    # Weight .5 * 1 + .5 * 2 = 1.5, sum .5 * 4 + .5 * 3 = 3.5.
    assert codebook.item() == pytest.approx(3.5 / 1.5)


def test_restarting_revives_a_codebook_that_starts_far_away():
    def dead_codes(restart_every):
        trainer = trainer_of(sizes=(16,), num_steps=60, restart_every=restart_every, codebook_update="gradient")
        trainer.network.normalize_like(trainer.vectors)
        trainer.care = trainer._start_codebooks()
        trainer.care.codebooks[0][4:] = 1000.0
        for _ in range(30):
            trainer.step(trainer.draw(64))
        with torch.no_grad():
            _, codes = trainer.network.quantize(trainer.network.encode(trainer.vectors), trainer.balancing)
        return 16 - len(codes[0].unique())

    assert dead_codes(restart_every=0) >= 12
    assert dead_codes(restart_every=10) <= 4


def test_sinkhorn_balances_the_chosen_levels_only():
    distances = torch.tensor([[0.0, 1.10], [0.0, 1.05], [0.0, 1.00], [0.0, 1.15]])
    balancing = Balancing([-1], 0.003, num_levels=2)
    assert balancing.codes(distances, level=0).tolist() == [0, 0, 0, 0]
    assert balancing.codes(distances, level=1).tolist() == [0, 1, 1, 0]  # the two that lose least by moving


def test_a_balanced_level_is_used_more_evenly():
    plain, balanced = fit(num_steps=150), fit(num_steps=150, sinkhorn_levels=[0, 1])
    assert balanced.report().levels[1].perplexity > plain.report().levels[1].perplexity


def test_a_collapse_is_warned_of_once(caplog):
    trainer = trainer_of()
    care = CodebookCare([torch.zeros(8, 4), torch.zeros(16, 4)], None, torch.Generator())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            care.observe([torch.zeros(9, 4)] * 2, [torch.arange(9) % 8, torch.zeros(9, dtype=torch.long)])
            assert trainer._check_collapse(care)[1] == pytest.approx(1 / 16)
    assert caplog.text.count("Codebook 2 has collapsed: its codes are as varied as 6 % of its size") == 1
    assert "Codebook 1" not in caplog.text


def test_fitting_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit()
    assert torch.equal(torch.rand(1), expected)


def test_codes_depend_on_the_seed():
    assert not torch.equal(fit(seed=1).codes, fit(seed=2).codes)


def test_start_uses_a_sample_of_a_large_catalog(monkeypatch):
    monkeypatch.setattr("genrec.item_tokenizers.rqvae_training.START_VECTORS_PER_CODE", 2)
    assert fit().report().reconstruction_error < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebook_update": "sgd"}, "must be 'ema' or 'gradient', got 'sgd'"),
        ({"num_steps": 0}, "`num_steps` and `batch_size` must be at least 1, got 0"),
        ({"restart_every": -1}, "or 0 for never, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RQVAETokenizer(**settings)


def test_a_level_that_does_not_exist_cannot_be_balanced():
    with pytest.raises(ValueError, match="levels of a code with 2 levels, from 0 or from -1 backwards, got 2"):
        fit(sinkhorn_levels=[2])


def test_a_codebook_larger_than_the_catalog_is_refused_before_training():
    with pytest.raises(ValueError, match="asks for 16 codes at level 1 and there are 9 items"):
        fit(vectors_of(9))
