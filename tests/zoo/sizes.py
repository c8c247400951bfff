"""Make a configuration of transformers tiny: every size is set by the name of its field.

No two dimensions of a model are the same number but where its code asks for it, so that a mix-up of names shows as a
wrong shape. The projections of attention are square all the same (heads · head_dim = hidden): that is where a weight
stored transposed does not show in the shapes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY = 71
HIDDEN = 32
IMAGE_TOKEN = VOCABULARY - 1

_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "text_vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "emb_dim", "mm_hidden_size"), HIDDEN),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "depth", "decoder_num_hidden_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("attention_heads", "decoder_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "attn_head_groups"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_dim"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "d_ff", "n_inner", "hidden_dim", "ffn_dim"), 56),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "intermediate_size_mlp", "mlp_dim", "dff", "d_inner"), 56),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 64),
    **dict.fromkeys(("max_encoder_position_embeddings", "max_decoder_position_embeddings", "seq_length"), 64),
    "max_target_positions": 64,
    **dict.fromkeys(("pad_token_id", "mask_token_id"), 0),
    **dict.fromkeys(("bos_token_id", "cls_token_id", "decoder_start_token_id"), 1),
    **dict.fromkeys(("eos_token_id", "sep_token_id", "forced_eos_token_id"), 2),
    # state spaces
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 6),
    **dict.fromkeys(("mamba_num_heads", "mamba_n_heads", "n_mamba_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
    "lru_width": HIDDEN,
    # mixtures of experts
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "experts_per_token", "moe_top_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), 20),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size"), 28),
    **dict.fromkeys(("moe_shared_expert_intermediate_size",), 28),
    **dict.fromkeys(("n_shared_experts", "moe_num_shared_experts", "n_group", "topk_group"), 1),
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "num_mtp_layers": 0,
    # low-rank attention
    "kv_lora_rank": 10,
    "q_lora_rank": 14,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 12,
    # linear attention
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    # encoders
    "embedding_size": 20,
    "type_vocab_size": 3,
    "sliding_window": 8,
    "attention_window": 4,
    "local_attention": 8,
    # pictures
    "image_size": 24,
    "patch_size": 8,
    "num_channels": 3,
    "projection_dim": 26,
    **dict.fromkeys(("image_token_id", "image_token_index"), IMAGE_TOKEN),
    **dict.fromkeys(("vision_start_token_id", "boi_token_index", "eoi_token_index"), IMAGE_TOKEN - 1),
    "video_token_id": IMAGE_TOKEN - 2,
    "vision_end_token_id": IMAGE_TOKEN - 3,
    "out_hidden_size": HIDDEN,
    # sound
    "num_mel_bins": 12,
    "max_source_positions": 20,
    "conv_dim": (16, 24),
    "conv_stride": (4, 2),
    "conv_kernel": (6, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 18,
    "layerdrop": 0.0,
    "num_labels": 3,
    # nothing random in a forward
    **dict.fromkeys(("use_mamba_kernels", "apply_spec_augment", "use_cache"), False),
}


def tiny(kind: str | type[PreTrainedConfig], changed: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the configuration of a model type, or of its class, with small sizes and then ``changed``.

    Where ``changed`` has a mapping for a part of the configuration (``text_config``), it holds what is to be changed
    of that part; its ``model_type`` chooses the part's kind.
    """
    config_class = CONFIG_MAPPING[kind] if isinstance(kind, str) else kind
    accepted = set(inspect.signature(config_class.__init__).parameters)
    values = {field: value for field, value in _SMALL.items() if field in accepted}
    if "conv_kernel" in values and "conv_dim" not in accepted:
        values["conv_kernel"] = 4  # of a state space: one number
    rest = dict(changed)
    parts: dict[str, PreTrainedConfig] = {}
    if config_class.sub_configs:
        default = config_class()
        for part in config_class.sub_configs:
            editable = dict(rest.pop(part, {}))
            chosen = editable.pop("model_type", None) or (type(d) if (d := getattr(default, part, None)) else None)
            if chosen is not None:
                parts[part] = tiny(chosen, editable)
    return config_class(**{**values, **parts, **rest})
