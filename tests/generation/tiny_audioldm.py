"""AudioLDM with random weights, saved in the format of the hub, for tests without a network."""

from pathlib import Path
from typing import Any

import torch

WORDS = "a the sound of dog barks rain falls on tin roof car horn beeps twice"


def write_audioldm(folder: Path, seed: int = 0) -> None:
    """The components of cvssp/audioldm-s-full-v2, narrow: 10.24 s of it take a second."""
    from diffusers import AudioLDMPipeline

    tokenizer = _tokenizer(folder / "tokenizer")
    torch.manual_seed(seed)
    pipeline = AudioLDMPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=_scheduler(),
        vocoder=_vocoder(),
    )
    pipeline.save_pretrained(folder)


def write_clap(audioldm: Path, folder: Path) -> None:
    """A whole CLAP in transformers' format, with the text tower of an AudioLDM that was written."""
    from safetensors.torch import load_file
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapTextConfig,
        RobertaTokenizer,
    )

    text = ClapTextConfig.from_pretrained(audioldm / "text_encoder").to_dict()
    torch.manual_seed(1)
    model = ClapModel(ClapConfig(text_config=text))
    weights = load_file(audioldm / "text_encoder" / "model.safetensors")
    _, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    model.save_pretrained(folder)
    RobertaTokenizer.from_pretrained(audioldm / "tokenizer").save_pretrained(folder)
    ClapFeatureExtractor().save_pretrained(folder)


def _tokenizer(folder: Path) -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    folder.mkdir(parents=True)
    trainer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator([WORDS] * 5, vocab_size=400, special_tokens=special)
    trainer.save_model(str(folder))
    return RobertaTokenizer.from_pretrained(folder, model_max_length=512)


def _text_encoder(tokens: int) -> Any:
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    config = ClapTextConfig(
        vocab_size=tokens,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=514,
        projection_dim=512,
    )
    return ClapTextModelWithProjection(config)


def _unet() -> Any:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=128,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=(8, 16),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=512,
        class_embeddings_concat=True,
    )
    unet.class_embedding.weight.data.mul_(50)  # random networks hardly hear their conditions
    return unet


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.9227,
    )


def _vocoder() -> Any:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig(
        model_in_dim=64,
        sampling_rate=16_000,
        upsample_initial_channel=32,
        upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        normalize_before=False,
        initializer_range=0.2,
    )
    return SpeechT5HifiGan(config)


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
