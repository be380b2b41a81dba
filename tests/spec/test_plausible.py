"""Numbers that nobody means: refused where a table of them would mean nothing, else remarked on."""

import pytest

from diffgap.errors import UserError
from diffgap.spec import Trial, load_sweep
from diffgap.spec.plausible import oddities

BASE = "name: s\nstore: soundscapes\n"


@pytest.fixture
def load(tmp_path):
    def load(*overrides):
        (tmp_path / "s.yaml").write_text(BASE)
        return load_sweep(tmp_path / "s.yaml", overrides)

    return load


@pytest.mark.parametrize(
    "override",
    [
        "trial.train.lr=1", "trial.train.lr=1e-300", "trial.train.lr=-0.1", "trial.train.lr=.nan",
        "trial.train.weight_decay=100", "trial.train.weight_decay=5e-324",
        "trial.train.gradient_clipping=1e300", "trial.loss.temperature=1e-300",
        "trial.loss.denoising_weight=1e308", "trial.loss.infonce_weight=1e-200",
        "trial.loss.condition_dropout=1e-320",
        "trial.cdm.t_sampler.power=1e308", "trial.cdm.t_sampler.mean=-1e308",
        "trial.cdm.t_sampler.std=1e-300", "trial.cdm.weight.gamma=1e308",
        "trial.cdm.weight.bias=1e308", "trial.score.fusion=1e308",
        "trial.score.rerank_weight=1e308",
        "trial.score.guidance=1e-300", "trial.score.levels=[0.5, 1e-300]",
        "trial.score.start_t=1e-300", "trial.generation.guidance=1e308",
        "trial.bst.fraction=1e-300",
        "trial.mean_shift.scale=1e308", "trial.close.noise=1e308",
        "trial.diffusion_bridge.radius=1e-300", "trial.diffusion_link.topology_weight=1e308",
        "resources.cpus_per_worker=1e-300", "resources.cpus_per_worker=1e300",
        "resources.gpus_per_worker=1e-300", "retries=1e9", "seeds=0", "seeds=[-1]",
        "axes.train.lr=[0.001, 1.0]", "axes.score.levels=[[0.5], [1e-300]]",
        "search.space={train.lr: {low: 1e-300, high: 0.1, log: true}}",
        "search.space={score.fusion: {choices: [1.0, 1e308]}}",
        "search.space={train.lr: {low: .nan, high: 0.1}}",
    ],
)  # fmt: skip
def test_what_can_only_be_a_mistake_is_refused_in_a_line_that_names_it(load, override):
    with pytest.raises(UserError) as refused:
        load(override)
    field = override.partition("=")[0]
    assert [line for line in refused.value.problems if line.startswith(field)]
    assert not any("Traceback" in line for line in refused.value.problems)


def test_settings_that_are_nonsense_together_are_refused(load):
    with pytest.raises(UserError, match=r"trial\.train\.weight_decay .* more than all of a weight"):
        load("trial.train.lr=0.3", "trial.train.weight_decay=5")
    for fraction in ("0.999", "0.001"):
        with pytest.raises(UserError, match="leaves one direction without a step"):
            load("trial.train.steps=10", "trial.bst.mode=alternate",
                 f"trial.bst.fraction={fraction}")  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        ["trial.train.lr=0.1"], ["trial.score.fusion=50"], ["trial.score.fusion=0"],
        ["trial.train.weight_decay=1"], ["trial.train.lr=1e-6"], ["trial.loss.temperature=0.01"],
        ["trial.train.ema=0"], ["trial.train.gradient_clipping=0"], ["trial.score.guidance=7.5"],
        ["trial.loss.denoising_weight=0"], ["trial.loss.denoising_weight=12"],
        ["trial.train.steps=50"], ["resources.gpus_per_worker=0"],
        ["resources.gpus_per_worker=0.1", "resources.cpus_per_worker=0.25"],
        ["search.space={train.lr: {low: 1e-7, high: 0.1, log: true}}"],
    ],
)  # fmt: skip
def test_honest_extremes_pass_without_a_word(load, overrides):
    assert list(oddities(load(*overrides))) == []


@pytest.mark.parametrize(
    ("override", "remark"),
    [
        ("trial.train.lr=0.3", "train.lr: 0.3 is unusual; common are [1e-06, 0.1]"),
        ("trial.loss.condition_noise=1e30", "loss.condition_noise: 1e+30 is unusual"),
        ("axes.score.fusion=[1.0, 200.0]", "score.fusion: 200.0 is unusual; common are [0, 100]"),
        ("trial.train.epoch_steps=5000", "train.epoch_steps: 5000 is more than train.steps 4000"),
    ],
)
def test_what_is_odd_is_said_and_done(load, override, remark):
    (line,) = oddities(load(override))
    assert line.startswith(remark)


def test_a_trial_that_an_earlier_version_ran_is_still_read():
    """The ranges are of requests: a record may have what is refused now."""
    fields = {"task": "text-audio", "seed": 0, "train": {"lr": 1.0, "weight_decay": 100.0}}
    assert Trial.model_validate(fields).train.lr == 1.0
