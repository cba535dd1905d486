# SPDX-License-Identifier: Apache-2.0
"""Hints for families whose generic configuration does not build or run, each with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Override:
    reason: str
    part: str = ""  # Submodule that takes text, if the whole model has no forward.
    sizes: dict[str, Any] = field(default_factory=dict)  # For shrink.Sizes.
    fields: dict[str, Any] = field(default_factory=dict)  # For every config that has them.
    defaults: dict[str, Any] = field(default_factory=dict)  # Where the class has none that work.


TWO_KINDS = ["linear_attention", "full_attention"]

OVERRIDES: dict[str, Override] = {
    "apertus1p5": Override(
        "its tokenizers check a width, and that their tokens are in the vocabulary",
        fields={
            "codebook_dim": 64,
            "codebook_size": 4,
            "image_token_offset": 82,
            "audio_token_offset": 86,
        },
    ),
    "bamba": Override("all layers are Mamba unless told", fields={"attn_layer_indices": [1]}),
    "blt": Override(
        "reads a field that the class lacks", fields={"BltConfig.num_hidden_layers": 2}
    ),
    "chameleon": Override(
        "the vocabulary of images has no default",
        fields={"vocabulary_map": {"<image>": 80, "IMGIMGAZ": 81, "IMGIMGBZ": 82}},
    ),
    "cohere_compass": Override(
        "no rotary parameters by default",
        fields={
            "CohereCompassTextConfig.rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 10000.0}
            }
        },
    ),
    "dbrx": Override(
        "the attention reads a field that the class lacks, and clips without a default",
        fields={"DbrxAttentionConfig.rope_theta": 10000.0, "DbrxAttentionConfig.clip_qkv": 8.0},
    ),
    "deepseek_ocr2": Override(
        "no kinds of layers by default",
        fields={"DeepseekOcr2TextConfig.mlp_layer_types": ["dense", "sparse"]},
    ),
    "dia": Override("amplifies roundings", sizes={"std": 0.15}),
    "diffusion_gemma": Override(
        "no experts by default",
        fields={"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 48},
    ),
    "dory": Override(
        "three parts must add up",
        fields={
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "n_input_layers": 1,
            "n_recurrent_layers": 2,
            "n_output_layers": 1,
        },
    ),
    "emu3": Override(
        "the vocabulary of images has no default",
        fields={
            "vocabulary_map": {
                "<image>": 80,
                "<|extra_200|>": 81,
                "<|visual token 000000|>": 82,
            }
        },
    ),
    "ernie4_5_vl_moe": Override("a default of its code, for 64 pairs", sizes={"mrope": (3, 3, 2)}),
    "fun_asr_nano": Override(
        "checked against a quarter of the text",
        fields={"FunAsrNanoAdaptorConfig.intermediate_size": 16},
    ),
    "gemma4_assistant": Override(
        "its own default is refused",
        defaults={
            "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
        },
    ),
    "gpt_neo": Override(
        "kinds of layers are written as pairs",
        fields={"attention_types": [[["global", "local"], 1]], "window_size": 24},
    ),
    "granite4_vision": Override(
        "no map by default", fields={"deepstack_layer_map": [[1, 0]], "downsample_rate": "1/2"}
    ),
    "granitemoehybrid": Override(
        "all layers are Mamba unless told", fields={"layer_types": TWO_KINDS}
    ),
    "hrm_text": Override("its loops amplify roundings", sizes={"std": 0.1}),
    "hunyuan_vl": Override("a list without default", sizes={"mrope": (2, 2, 2, 2)}),
    "kosmos-2": Override(
        "an image must fit into a short text", fields={"Kosmos2Config.latent_query_num": 6}
    ),
    "lfm2_moe": Override(
        "no kinds of layers by default", fields={"layer_types": ["conv", "full_attention"]}
    ),
    "mamba2": Override("heads must fill the expanded width", fields={"Mamba2Config.head_dim": 32}),
    "molmo2": Override(
        "must index the tower", fields={"Molmo2AdapterConfig.vision_feature_layer": [1, 0]}
    ),
    "moonshine_streaming": Override(
        "the decoder reads a field that the class lacks",
        fields={"MoonshineStreamingConfig.num_key_value_heads": 4},
    ),
    "muse_spark": Override(
        "a tower of growing widths, of 100 M parameters",
        fields={"MuseSparkAudioConfig.hidden_sizes": (32, 32, 32, 32)},
    ),
    "nemotron_h_omni": Override(
        "two fields must agree", fields={"RadioConfig.video_temporal_patch_size": 2}
    ),
    "qwen2_5_omni": Override(
        "has no forward", part="thinker", fields={"enable_audio_output": False}
    ),
    "qwen3_omni_moe": Override(
        "has no forward", part="thinker", fields={"enable_audio_output": False}
    ),
    "qwen4_exp": Override(
        "no indexer by default",
        fields={
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 16,
            "indexer_compress_ratio": 4,
        },
    ),
    "perception_lm": Override(
        "reads the options of a tower of timm",
        fields={"SiglipVisionConfig.model_args": {"embed_dim": 64}},
    ),
    "reformer": Override("positions are factored by default", fields={"axial_pos_embds": False}),
    "recurrent_gemma": Override("attends in every third layer", fields={"num_hidden_layers": 3}),
    "seamless_m4t": Override("amplifies roundings", sizes={"std": 0.15}),
    "step3p7": Override("no window by default", fields={"sliding_window": 24}),
    "xlstm": Override("the cache assumes equal widths", fields={"qk_dim_factor": 1.0}),
    "xmod": Override("no language by default", fields={"default_language": "en_XX"}),
    "zamba": Override(
        "two layers must share the attention",
        fields={
            "num_hidden_layers": 4,
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "attention_hidden_size": 128,
            "attention_head_dim": 32,
        },
    ),
}
TALKERS = ("Qwen2_5OmniThinkerConfig", "Qwen3OmniMoeThinkerConfig")
VISION_START = {f"{name}.vision_start_token_id": 90 for name in TALKERS}
for omni in ("qwen2_5_omni", "qwen3_omni_moe"):
    OVERRIDES[omni].fields.update(VISION_START)
    reason = "positions of images need a token that has no default"
    OVERRIDES[f"{omni}_thinker"] = Override(reason, fields=VISION_START)
OVERRIDES["seamless_m4t_v2"] = OVERRIDES["seamless_m4t"]
OVERRIDES["cohere_compass_text"] = OVERRIDES["cohere_compass"]
OVERRIDES["qwen4_exp_text"] = OVERRIDES["qwen4_exp"]
