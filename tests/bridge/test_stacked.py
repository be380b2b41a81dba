"""K networks as one: outputs and gradients are each one's own, and no weight is copied."""

import copy

import pytest
import torch

from diffgap.bridge import stacked
from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.denoiser import Denoiser
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.stacked import StackedBridges, stack

D, B, K = 16, 12, 3


def denoisers(count=K):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(Denoiser(D, 32, 2))
        for parameter in made[-1].parameters():  # zero-initialised layers would hide mistakes
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def inputs():
    generator = torch.Generator().manual_seed(0)
    noisy, condition = torch.randn(2, K, B, D, generator=generator)
    log_snr = torch.randn(K, B, generator=generator)
    return noisy, log_snr, torch.arange(K * B).view(K, B) % 2, condition


def gradients(network):
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def test_a_stack_computes_what_each_does_to_the_last_digit():
    alone, together = denoisers(), denoisers()
    network = stack(together)
    expected = torch.stack(
        [d(*row) for d, row in zip(alone, zip(*inputs(), strict=True), strict=True)]
    )
    found = network(*inputs())
    assert found.equal(expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    for one, other in zip(alone, together, strict=True):
        wanted, got = gradients(one), gradients(other)
        assert wanted.keys() == got.keys()
        assert all(got[name].equal(value) for name, value in wanted.items())
        assert all(value.is_contiguous() for value in got.values())


def test_batched_products_compute_the_same(monkeypatch):
    """What a GPU runs, here on a CPU."""
    alone, together = denoisers(), denoisers()
    monkeypatch.setattr(stacked, "_at_once", lambda _: True)
    expected = torch.stack(
        [d(*row) for d, row in zip(alone, zip(*inputs(), strict=True), strict=True)]
    )
    found = stack(together)(*inputs())
    assert torch.allclose(found, expected, atol=1e-5)
    expected.square().sum().backward()
    found.square().sum().backward()
    for one, other in zip(alone, together, strict=True):
        got = gradients(other)
        for name, value in gradients(one).items():
            assert torch.allclose(got[name], value, atol=1e-4), name
            assert got[name].is_contiguous()


def test_the_weights_stay_the_networks_own():
    together = denoisers()
    network = stack(together)
    assert list(network.parameters()) == [network.null_condition]
    assert network.null_condition.is_meta  # conditions come with it already
    with torch.no_grad():
        together[1].output.weight.zero_()
        together[1].output.bias.fill_(7.0)
    out = network(*inputs())
    assert (out[1] == 7).all()
    assert not (out[0] == 7).any()


def test_bf16_keeps_fp32_weights_and_gradients():
    alone, together = denoisers(), denoisers()
    network = stack(together)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(*inputs())
        expected = torch.stack(
            [d(*row) for d, row in zip(alone, zip(*inputs(), strict=True), strict=True)]
        )
    assert torch.allclose(found, expected, atol=0.05)
    assert found.dtype == expected.dtype == torch.bfloat16
    found.float().square().sum().backward()
    assert {value.dtype for d in together for value in gradients(d).values()} == {torch.float32}


def config(method, **changes):
    options = {
        "close": {"noise": 0.08}, "diffusion_bridge": {"radius": 5.0, "timesteps": 1000},
    }.get(method, {})  # fmt: skip
    cdm, bst = method == "diffgap", method in ("diffgap", "deterministic")
    fields = {"width": 32, "blocks": 2, "cdm": cdm, "bst": bst, "method": method}
    return BridgeConfig(("text", "audio"), D, **{**fields, "options": options, **changes})


@pytest.mark.parametrize("broken", [False, True])
def test_a_pack_mixes_methods_and_a_nan_stays_where_it_is(broken):
    bridges = [make_bridge(config(m)) for m in ("diffgap", "close", "deterministic")]
    packed = copy.deepcopy(bridges)
    x, a = torch.nn.functional.normalize(torch.randn(2, B, D), dim=-1)
    for bridge in (*bridges, *packed):
        bridge.fit(x, a, torch.arange(len(x)))
    batches = [b.batch(x, a, torch.arange(B), 0, torch.Generator().manual_seed(0)) for b in bridges]
    pack = StackedBridges(packed)
    if broken:
        with torch.no_grad():
            packed[0].denoiser.output.bias.fill_(torch.nan)
    losses = pack(*batches)
    losses.total.sum().backward()
    for number in range(1 if broken else 0, len(bridges)):
        alone = bridges[number](batches[number])
        assert [part[number] for part in losses] == list(alone)
        alone.total.backward()
        wanted, got = gradients(bridges[number]), gradients(packed[number])
        assert all(got[name].equal(value) for name, value in wanted.items())
    assert losses.total[0].isnan() == broken
