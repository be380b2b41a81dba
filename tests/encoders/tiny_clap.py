"""CLAP with random weights, saved in the formats of the hub, for tests without a network."""

import re
from pathlib import Path

import numpy as np
import torch

WORDS = "a the sound of dog barks rain falls on tin roof car horn beeps twice"


def write_text_models(folder: Path) -> None:
    """The tokenizers that laion_clap loads by name when imported, and a RoBERTa of one layer.

    `from_pretrained(name)` takes a folder of that name in the working directory first.
    """
    from tokenizers import ByteLevelBPETokenizer
    from transformers import BertTokenizer, RobertaConfig, RobertaModel, RobertaTokenizer

    bert = folder / "bert-base-uncased"
    bert.mkdir(parents=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    (bert / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    for name in ("roberta-base", "facebook/bart-base"):
        place = folder / name
        place.mkdir(parents=True)
        trainer = ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trainer.train_from_iterator([WORDS] * 5, vocab_size=400, special_tokens=special)
        trainer.save_model(str(place))
        RobertaTokenizer.from_pretrained(place).save_pretrained(place)
    config = RobertaConfig(
        vocab_size=400,
        hidden_size=768,
        num_hidden_layers=1,
        num_attention_heads=12,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(folder / "roberta-base")


def write_laion_checkpoint(path: Path) -> None:
    """A checkpoint as LAION published them: wrapped, prefixed, with a scalar and position ids.

    To be called where the text models are.
    """
    import laion_clap

    torch.manual_seed(0)
    module = laion_clap.CLAP_Module(enable_fusion=False, device="cpu")
    state = {f"module.{name}": value for name, value in module.model.state_dict().items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save({"epoch": 3, "loss": np.float64(0.5), "state_dict": state}, path)


RENAMED = (
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"_projection\.0\.", "_projection.linear1."),
    (r"_projection\.2\.", "_projection.linear2."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.bn0\.", ".batch_norm."),
)
"""LAION's names to those of transformers."""

UNUSED = ("head", "tscam_conv", "extractor", "_transform", "attn_mask")
"""LAION's weights that embeddings do not pass through, and buffers."""


def write_hf_model(laion_checkpoint: Path, folder: Path) -> None:
    """The same weights as transformers' ClapModel. To be called where the text models are."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    text = {
        "vocab_size": 400,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "max_position_embeddings": 514,
    }
    model = ClapModel(ClapConfig(text_config=text))
    state = torch.load(laion_checkpoint, weights_only=False)["state_dict"]
    named = _renamed({name.removeprefix("module."): value for name, value in state.items()})
    missing, unexpected = model.load_state_dict(named, strict=False)
    assert not [name for name in missing if "token_type_ids" not in name], missing
    assert not unexpected, unexpected
    model.save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    RobertaTokenizer.from_pretrained("roberta-base").save_pretrained(folder)


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, value in state.items():
        if any(part in name for part in UNUSED):
            continue
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if ".qkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("qkv", part)] = third
        else:
            renamed[name] = value
    return renamed
