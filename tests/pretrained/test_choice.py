"""Choices of frozen models: every registered class can be had, and wrong ones are refused."""

import importlib
import pickle

import pytest

from diffgap.encoders import EncoderChoice
from diffgap.errors import UserError
from diffgap.evaluation.extractors import ExtractorChoice
from diffgap.generation import TRAINED_ON, GeneratorChoice
from diffgap.pretrained.choice import BUNDLED

FAMILIES = [EncoderChoice, GeneratorChoice, ExtractorChoice]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_leads_to_the_class_of_that_name(family):
    assert BUNDLED in family.models
    for name, path in family.models.items():
        module, _, class_name = path.partition(":")
        model_class = getattr(importlib.import_module(module), class_name)
        assert model_class.name == name
        assert callable(model_class.load)


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_choices_name_their_option(family):
    kind = family.option.removeprefix("--")
    expected = f"^{family.option}: unknown {kind} 'sundscape'; did you mean soundscape"
    with pytest.raises(UserError, match=expected):
        family("sundscape")
    expected = f"^{family.weights_option}: soundscape comes with its own weights; leave them out"
    with pytest.raises(UserError, match=expected):
        family("soundscape", "mine.safetensors").load()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_travels_to_other_processes(family):
    choice = family.parse("soundscape=a=b.pth")
    assert choice == family("soundscape", "a=b.pth")
    assert pickle.loads(pickle.dumps(choice)) == choice


def test_every_generator_says_which_encoders_it_takes():
    assert TRAINED_ON.keys() == GeneratorChoice.models.keys()
    assert {name for names in TRAINED_ON.values() for name in names} == EncoderChoice.models.keys()
