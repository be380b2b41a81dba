"""BST's split, the losses, and their independence of how a batch is shared out."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.config import BridgeConfig, Objective
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.objective import infonce, make_batch

D, B = 16, 12
CONFIG = BridgeConfig(
    ("text", "audio"), D, width=32, blocks=2, cdm=True, bst=True, bst_fraction=0.5
)


def embeddings(count=B, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, a = F.normalize(torch.randn(2, count, D, generator=generator), dim=-1)
    return x, a, torch.arange(count)


def bridge_of(**changes):
    torch.manual_seed(0)
    bridge = DiffGAP(replace(CONFIG, **changes))
    for parameter in bridge.parameters():  # the zero-initialised layers would hide differences
        torch.nn.init.normal_(parameter, std=0.1)
    return bridge


def batch_of(bridge, step=0):
    return bridge.batch(*embeddings(), step, torch.Generator().manual_seed(step))


def gradient(bridge, loss):
    used = [p for name, p in bridge.named_parameters() if bridge.config.cdm or "null" not in name]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, used)])


def test_split_gives_each_direction_its_share():
    pairs, direction = bst.assign(10, 0, True, "split", 0.3)
    assert pairs.tolist() == list(range(10))
    assert direction.tolist() == [0] * 3 + [1] * 7


def test_alternate_turns_whole_batches_in_the_asked_proportion():
    turns = [bst.assign(4, step, True, "alternate", 0.25)[1] for step in range(8)]
    assert all(turn.unique().numel() == 1 for turn in turns)
    assert [int(turn[0]) for turn in turns] == [0, 1, 1, 1, 0, 1, 1, 1]


def test_joint_shows_every_pair_in_both_directions():
    pairs, direction = bst.assign(3, 0, True, "joint", 0.5)
    assert sorted(zip(pairs.tolist(), direction.tolist(), strict=True)) == [
        (p, d) for p in range(3) for d in (0, 1)
    ]


def test_without_bst_every_pair_trains_x_to_a():
    assert bst.assign(5, 3, False, "alternate", 0.5)[1].tolist() == [0] * 5


def test_targets_and_conditions_follow_the_direction():
    x, a, clip = embeddings()
    pairs, direction = bst.assign(B, 0, True, "split", 0.5)
    batch = make_batch(
        x, a, clip, pairs, direction,
        Objective(condition_noise=0.0, condition_dropout=0.0),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    half = B // 2
    assert batch.target[:half].equal(a[:half])
    assert batch.condition[:half].equal(x[:half])
    assert batch.target[half:].equal(x[half:])
    assert batch.condition[half:].equal(a[half:])


@pytest.mark.parametrize("cdm", [True, False])
def test_bst_gradient_is_the_mean_of_the_two_directions(cdm):
    bridge = bridge_of(cdm=cdm)
    batch = batch_of(bridge)
    both = gradient(bridge, bridge(batch).total)
    halves = []
    for direction in (0, 1):
        mine = (batch.direction == direction).nonzero().flatten()
        names = ("target", "source", "noise", "condition", "dropped", "direction", "t", "row")
        half = replace(batch, **{name: getattr(batch, name)[mine] for name in names})
        halves.append(gradient(bridge, bridge(half).total))
    assert not torch.allclose(halves[0], halves[1], atol=1e-3)
    assert torch.allclose(both, (halves[0] + halves[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("mode", bst.MODES)
def test_shards_average_to_the_whole_batch(mode):
    bridge = bridge_of(bst_mode=mode)
    batch = batch_of(bridge)
    whole = bridge(batch)
    parts = [bridge(batch.shard(rank, 3)) for rank in range(3)]
    for name in whole._fields:
        mean = torch.stack([getattr(part, name) for part in parts]).mean()
        assert torch.allclose(mean, getattr(whole, name), atol=1e-6)


def test_infonce_against_the_obvious_loop():
    bridge = bridge_of()
    x, a, _ = embeddings()
    clip = torch.arange(B) // 2  # two captions a clip
    batch = bridge.batch(x, a, clip, 0, torch.Generator().manual_seed(0))
    clean = torch.randn(B, D, generator=torch.Generator().manual_seed(3))
    expected = []
    for i in range(B):
        rivals = [
            j for j in range(B)
            if j == i or (batch.direction[j] == batch.direction[i] and clip[j] != clip[i])
        ]  # fmt: skip
        cosines = F.cosine_similarity(clean[i][None], batch.target[rivals]) / 0.05
        expected.append(cosines.logsumexp(0) - cosines[rivals.index(i)])
    assert torch.allclose(infonce(clean, batch, 0.05), torch.stack(expected).mean(), atol=1e-5)


def test_eps_loss_is_the_mean_squared_error_of_the_noise():
    bridge = bridge_of(
        objective=Objective(prediction="eps", infonce_weight=0.0, condition_dropout=0.0)
    )
    batch = batch_of(bridge)
    log_snr = bridge.schedule(batch.t)
    alpha, sigma = torch.sigmoid(log_snr).sqrt()[:, None], torch.sigmoid(-log_snr).sqrt()[:, None]
    z = alpha * batch.target + sigma * batch.noise
    predicted = bridge.denoiser(z, log_snr, batch.direction, batch.condition)
    assert torch.allclose(bridge(batch).total, (predicted - batch.noise).square().mean())


def test_dropped_conditions_do_not_reach_the_loss():
    bridge = bridge_of()
    batch = batch_of(bridge)
    dropped = replace(batch, dropped=torch.ones(B, dtype=torch.bool))
    other = replace(dropped, condition=torch.randn(B, D))
    assert bridge(dropped).total.equal(bridge(other).total)
