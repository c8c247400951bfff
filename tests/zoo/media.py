"""Models of pictures and sounds, alone or beside text: what of the tiny configuration is to be changed."""

from __future__ import annotations

from typing import Any

from zoo.sizes import HIDDEN

PICTURES: dict[str, dict[str, Any]] = {
    "vit": {},
    "vit_msn": {},
    "dinov2": {"patch_size": 8},
    "dinov2_with_registers": {},
    "ijepa": {},
    "beit": {"use_relative_position_bias": True},
    "data2vec-vision": {},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 3, "patch_size": 4},
    "convnext": {"hidden_sizes": [16, 20], "depths": [1, 1], "num_stages": 2, "patch_size": 4},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 24], "depths": [1, 1]},
    "segformer": {
        **{"num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [16, 24], "num_attention_heads": [2, 4]},
        **{"sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2]},
        "decoder_hidden_size": 16,
    },
    "siglip": {"vision_config": {"image_size": 32}},
    "clip": {"vision_config": {"image_size": 32}},
}

SOUND: dict[str, dict[str, Any]] = {
    "wav2vec2": {},
    "hubert": {},
    "wavlm": {},
    "unispeech": {},
    "data2vec-audio": {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2},
}

SPECTROGRAM = {"max_length": 16, "num_mel_bins": 12, "patch_size": 4, "frequency_stride": 4, "time_stride": 4}
_CLIP = {"model_type": "clip_vision_model"}
_SIGLIP = {"model_type": "siglip_vision_model"}

_ROTATED = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}

VISION_LANGUAGE: dict[str, dict[str, Any]] = {
    "llava": {"inputs": "picture-text:9", "vision_config": _CLIP, "text_config": {"model_type": "llama"}},
    "llava-qwen2": {
        **{"model_type": "llava", "inputs": "picture-text:9", "vision_config": _SIGLIP},
        **{"text_config": {"model_type": "qwen2"}, "vision_feature_select_strategy": "full"},
    },
    "vipllava": {
        **{"inputs": "picture-text:9", "vision_config": _CLIP, "text_config": {"model_type": "llama"}},
        "vision_feature_layers": [-2, -1],
    },
    "paligemma": {
        **{"inputs": "picture-text:9", "vision_config": _SIGLIP, "text_config": {"model_type": "gemma"}},
        **{"projection_dim": HIDDEN},
    },
    "gemma3": {"inputs": "picture-text:9", "mm_tokens_per_image": 9, "vision_config": _SIGLIP},
    "idefics3": {"inputs": "pictures-text:1", "scale_factor": 3, "text_config": {"model_type": "llama"}},
    "smolvlm": {"inputs": "pictures-text:1", "scale_factor": 3, "text_config": {"model_type": "llama"}},
    "internvl": {
        **{"inputs": "picture-text:4", "vision_config": {"image_size": [32, 32], "patch_size": [8, 8]}},
        **{"text_config": {"model_type": "qwen2"}},
    },
    "blip-2": {
        **{"inputs": "picture-text:4", "num_query_tokens": 4, "text_config": {"model_type": "opt"}},
    },
    "mllama": {},
    "qwen2_vl": {"inputs": "patches-text:4", "text_config": _ROTATED},
    "qwen2_5_vl": {
        **{"inputs": "patches-text:4", "text_config": _ROTATED},
        "vision_config": {"window_size": 32, "fullatt_block_indexes": [1]},
    },
    "qwen3_vl": {"inputs": "patches-text:4", "vision_config": {"deepstack_visual_indexes": [0]}},
    "mistral3": {"vision_config": {"model_type": "pixtral"}, "text_config": {"model_type": "mistral"}},
    "aya_vision": {"vision_config": _SIGLIP, "text_config": {"model_type": "cohere2"}},
    "llava_next": {"vision_config": _CLIP, "text_config": {"model_type": "mistral"}},
    "llava_onevision": {"vision_config": _SIGLIP, "text_config": {"model_type": "qwen2"}},
    "got_ocr2": {"text_config": {"model_type": "qwen2"}},
    "git": {},
    "gemma3n": {},
    "kosmos-2": {},
}
