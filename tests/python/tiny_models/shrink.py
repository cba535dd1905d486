# SPDX-License-Identifier: Apache-2.0
"""Make any configuration of transformers tiny, by the names and values of its fields.

Every size follows a rule for its name. Two fields that must agree (the width of a tower and what
its projector expects) then agree again without knowledge of the family.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, SiglipVisionConfig

VOCAB, LAYERS, MAX_LAYERS = 97, 2, 4
# Prompts use ids below this one; those from here on are for images, audio and the like, which a
# text must not contain by accident.
FIRST_SPECIAL_ID = 70


@dataclass(frozen=True)
class Sizes:
    """Settings that change if a family does not build or run with the defaults."""

    hidden: int = 64
    heads: int = 4
    heads_kv: int = 2
    head_dim: int = 16
    inter: int = 48
    experts: int = 4
    eos: int | None = None
    std: float = 0.3  # Of weights. At 0.02 all logits of a row are alike, whatever it attends.
    features: bool = True  # Turns on what is off by default: windows, keys shared by layers.
    fill: bool = False  # Sets numbers of experts and of an indexer in fields that have none.
    mrope: tuple[int, ...] = ()  # Not given by rope_parameters, but assumed by the code.
    # Field names to values, for every configuration that has them, or "ClassName.field".
    extra: dict[str, Any] = field(default_factory=dict)


# Name patterns to new values; the first that matches the whole name wins. None keeps the value. A
# string names a field of Sizes. Order matters: an exception comes before its rule.
INT_RULES: list[tuple[str, int | str | None]] = [
    # Layers
    (r"(num_)?(hidden_|decoder_|encoder_)?layers", "layers"),
    (r"n_layers?|num_blocks|depth|.*_(num_)?(hidden_)?layers|num_sparse_.*_layers", "layers"),
    # Which layers are of another kind
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", 1),
    (r"moe_layer_end_index", 3),
    (r".*_(period|interval|frequency|every_n_layers|sparse_step|layer_step)", 2),
    (r"(attn|expert)_layer_offset", 1),
    (r"layer_group_size|n_layers_per_attn_res_block", 2),
    (r"max_window_layers", 1),  # The first layer sees everything, the others have a window.
    # Heads
    (r"(.*_)?(num_key_value_heads|n_kv_heads|kv_n_heads|num_kv_heads)", "heads_kv"),
    (r"(linear_)?num_key_heads|linear_num_key_heads|mamba_n_groups|mamba_ngroups|n_groups", 2),
    (r"num_query_groups|attention_num_groups|(n|o)_groups?", 2),
    (r"index_n_heads|indexer_n_heads", 2),
    (r"(.*_)?(num_)?(attention_|sliding_attention_)?n?_?heads", "heads"),
    (r"n_head|.*num_attention_heads|linear_num_.*_heads|mamba_(n|num)_heads", "heads"),
    # Lengths of one head
    (r"(swa_|global_)?qk_rope_head_dim|rotary_dim", 8),
    (r"qk_head_dim", 24),
    (r"(index|indexer)_head_dim", "head_dim"),
    (r".*head_?_?dim|dim_head|d_head|d_kv|kv_channels|attention_head_size|head_size", "head_dim"),
    # Experts
    (r"num_experts_per_tok(en)?|moe_(topk|k|top_k)|top_k_experts|experts_per_tok(en)?", 2),
    (r"n_shared_experts|(moe_)?num_shared_experts|zero_expert_num", 1),
    (r"(n_group|topk_group|num_expert_groups?)", 1),
    (r"(n_routed|num_local|moe_num|num|num_routed)_experts", "experts"),
    # Windows and other ways to select keys
    (r"sliding_window(_size)?|local_attention|attention_window(_size)?", 24),
    (r"local_attention_window_len|keep_window_size", 24),
    (r"attention_chunk_size", 32),
    (r"index_topk|index_topk_blocks", 16),
    # Ranks
    (r"q_lora_rank", 24),
    (r".*rank|.*lowrank", 16),
    # Vocabulary and positions
    (r"encoder_hash_byte_group_vocab|n_words", VOCAB),
    (r"unit_hifi_gan_vocab_size|vocab_size_per_layer_input|(.*_)?vocab_size", VOCAB),
    (r"(.*_)?max_position_embeddings|n_positions|n_ctx|max_(seq_len|target_positions)", 512),
    (r"max_(encoder|decoder|text|sequence)_?position.*|model_max_length|context_length", 512),
    (r"max_source_positions", 128),
    (r"block_size|image_size|patch_size|num_channels|in_channels|(.*)num_mel_bins", None),
    (r"hidden_size_per_layer_input|ple_embed_dim", 16),
    # State space and linear attention
    (r".*(d_state|state_size|ssm_state_size)", 16),
    (r"(.*_)?chunk_size|mamba_d_conv|conv_kernel.*|.*kernel_size|expand|mamba_expand", None),
    # Widths
    (r"(.*_)?(intermediate_size|ffn_dim|ffn_hidden_size|d_ff|dff|dim_ff|mlp_dim|n_inner)", "inter"),
    (r"intermediate_size_mlp|d_inner|share_expert_dim|feed_forward_size", "inter"),
    (r"(.*_)?(hidden_size|hidden_dim|d_model|n_embd|embed_dim|embedding_size)", "hidden"),
    (
        r"adapter_in(put)?_(dim|size)|lru_width|hidden_size_global|embedding_dim|word_embed_proj_dim|dim_model_base|backbone_hidden_size",
        "hidden",
    ),
    (r"(.*_)?(output_dim|projection_dim|embed_dim|out_hidden_size|out_dim)", "hidden"),
    (r"upsample_groups|emb_dim", "hidden"),
    (r"num_filters", 4),
    (r"upsample_initial_channel|.*_channels|base_channels", 32),
]
ID_NAME = re.compile(r".*(token|bos|eos|eod|pad|start|end|newline|patch|blank)_(id|index)")
INDEX_LISTS = re.compile(r".*(_idxs|_indexes|_indices|_layers|_layer_ids?)")
DEPTH_NAMES = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth", "encoder_layers")
# Towers of another package, which text does not use.
NEED_TIMM = ("timm_wrapper",)
NEVER = {f.name for f in dataclasses.fields(PreTrainedConfig)}


def shrunk(config: PreTrainedConfig, sizes: Sizes) -> PreTrainedConfig:
    """A tiny configuration of the same class."""
    return type(config)(**_Shrink(config, sizes).arguments())


class _Shrink:
    def __init__(self, config: PreTrainedConfig, sizes: Sizes) -> None:
        # Heterogeneous configurations must be told that they may be read as a whole.
        config.allow_global_per_layer_attribute_access = True
        self.config, self.sizes = config, sizes
        self.values = {
            f.name: getattr(config, f.name, None)
            for f in dataclasses.fields(config)
            if f.init and f.name not in NEVER
        }
        self.depth = next(
            (self.values[n] for n in DEPTH_NAMES if isinstance(self.values.get(n), int)), 0
        )
        if self.sizes.features and self.values.get("num_kv_shared_layers") == 0:
            self.values["num_kv_shared_layers"] = self.depth // 2
        self.overrides = getattr(config, "_heterogeneity_spec", None)
        self.overrides = self.overrides.per_layer_overrides if self.overrides else {}
        self.picked = self._picked_layers()
        self.special = iter(range(FIRST_SPECIAL_ID, VOCAB))

    def arguments(self) -> dict[str, Any]:
        new = {}
        for name, value in self.values.items():
            changed = self._changed(name, value)
            if changed is not None and changed is not value:
                new[name] = changed
            elif self._is_given(name, value):
                new[name] = value
        eos = self.sizes.eos
        ids = {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": 0}
        ids["decoder_start_token_id"] = 1
        new |= {name: value for name, value in ids.items() if name in self.values}
        rope_dim = self.values.get("qk_rope_head_dim")
        if rope_dim is not None and self.values.get("head_dim") == rope_dim:
            new["head_dim"] = new.get(
                "qk_rope_head_dim", rope_dim
            )  # DeepSeek: the part that is rotated.
        is_off = self.values.get("use_sliding_window") is False and "layer_types" in self.values
        if self.sizes.features and is_off:
            new |= {"use_sliding_window": True, "sliding_window": 24}
            if set(new.get("layer_types") or ["full_attention"]) == {"full_attention"}:
                kinds = ["full_attention", "sliding_attention"]
                new["layer_types"] = (kinds * len(self.picked))[: len(self.picked)]
        if self.overrides:
            new["per_layer_config"] = self._changed_overrides()
        for name, value in self.sizes.extra.items():
            owner, _, field_name = name.rpartition(".")
            if owner == type(self.config).__name__ or (not owner and field_name in self.values):
                new[field_name] = value
        return new

    def _is_given(self, name: str, value: Any) -> bool:
        """Whether the enclosing configuration set a part's switch, against its default."""
        default = next(f.default for f in dataclasses.fields(self.config) if f.name == name)
        if default is None or default is dataclasses.MISSING or value == default:
            return False
        return value is None or value == 0 or isinstance(value, (bool, str, float))

    # ---- Layers: as few as show every kind ----

    def _picked_layers(self) -> list[int]:
        """Which layers of the full depth are kept; the per-layer fields define their kinds."""
        if self.depth <= MAX_LAYERS:
            return list(range(self.depth))
        kinds: dict[Any, int] = {}
        columns = [v for n, v in self.values.items() if self._is_per_layer(n, v)]
        members = [v for n, v in self.values.items() if self._is_index_list(n, v)]
        for layer in range(self.depth):
            kind = tuple(repr(column[layer]) for column in columns)
            kind += tuple(layer in indices for indices in members)
            kinds.setdefault((*kind, repr(self.overrides.get(layer))), layer)
        picked = sorted(kinds.values())
        while len(picked) > MAX_LAYERS:  # Rarely: then every value of every field, not all pairs.
            seen = [{k[i] for k, at in kinds.items() if at in picked} for i in range(len(kind))]
            spare = [p for p in picked if self._covers(kinds, picked, p, seen)]
            picked.remove(spare[-1] if spare else picked[-1])
        shared = self.values.get("num_kv_shared_layers")
        if len(picked) == 1 or (shared and shared < self.depth and len(picked) < MAX_LAYERS):
            picked = (picked * 2)[:MAX_LAYERS]
        return picked

    @staticmethod
    def _covers(kinds: dict[Any, int], picked: list[int], without: int, seen: list[Any]) -> bool:
        rest = [k for k, at in kinds.items() if at in picked and at != without]
        return all({k[i] for k in rest} == values for i, values in enumerate(seen))

    def _is_per_layer(self, name: str, value: Any) -> bool:
        is_long = isinstance(value, (list, tuple)) and len(value) == self.depth > MAX_LAYERS
        return is_long and not self._is_index_list(name, value)

    def _is_index_list(self, name: str, value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or not INDEX_LISTS.fullmatch(name):
            return False
        if not value or any(type(v) is not int or not 0 <= v < self.depth for v in value):
            return False
        return list(value) == sorted(set(value))

    def _changed_overrides(self) -> dict[int, dict[str, Any]]:
        """Give layers that had other sizes than the rest twice the size of the rest."""
        new: dict[int, dict[str, Any]] = {}
        for at, layer in enumerate(self.picked):
            for name, value in self.overrides.get(layer, {}).items():
                changed = self._changed(name, value)
                if isinstance(value, int) and value != self.values.get(name) and "head" in name:
                    changed = (changed or value) * 2 if "kv" not in name else changed
                new.setdefault(at, {})[name] = value if changed is None else changed
            if "qk_nope_head_dim" in new.get(at, {}):
                new[at]["head_dim"] = new[at]["qk_nope_head_dim"] + 8
        return new

    # ---- One field ----

    def _changed(self, name: str, value: Any) -> Any:
        """The value to pass for a field; None leaves it to the class."""
        if isinstance(value, PreTrainedConfig):
            if value.model_type in NEED_TIMM:
                return shrunk(SiglipVisionConfig(), self.sizes)
            return shrunk(value, self.sizes)
        if value is None:
            return self._filled(name)
        if isinstance(value, bool):
            return None
        if isinstance(value, int):
            return self._changed_int(name, value)
        if isinstance(value, float):
            if "drop" in name:
                return 0.0
            return self.sizes.std if name in ("initializer_range", "init_std") else None
        if isinstance(value, dict):
            return self._changed_dict(name, value)
        if isinstance(value, (list, tuple)):
            return self._changed_list(name, value)
        return None

    def _filled(self, name: str) -> int | None:
        """Sizes that a class leaves open but its modules need."""
        if re.fullmatch(r"(image|video)_token_(id|index)", name):
            return next(self.special)
        if re.fullmatch(r"head_dim|num_key_value_heads", name):
            return self._changed_int(name, 1)
        if self.sizes.fill and re.fullmatch(r"index.*|.*experts.*|n_group|topk_group", name):
            return self._changed_int(name, MAX_LAYERS)
        return None

    def _changed_int(self, name: str, value: int) -> int | None:
        if "drop" in name:
            return 0
        if ID_NAME.fullmatch(name):
            return next(self.special)
        if name == "num_kv_shared_layers" and value:
            return len(self.picked) // (2 if value < self.depth else 1)
        for pattern, to in INT_RULES:
            if re.fullmatch(pattern, name):
                return self._by_rule(to, value)
        return None

    def _by_rule(self, to: int | str | None, value: int) -> int | None:
        if to is None or value <= 0:
            return None
        if to == "layers":
            return len(self.picked) if value == self.depth else min(value, LAYERS)
        if isinstance(to, str):
            return getattr(self.sizes, to)
        return min(to, value)

    def _changed_list(self, name: str, value: Any) -> Any:
        if self._is_index_list(name, value):
            kept = [at for at, layer in enumerate(self.picked) if layer in value]
            return type(value)(kept or [0])
        if self._is_per_layer(name, value):
            value = type(value)(value[layer] for layer in self.picked)
        if value and all(type(v) is int for v in value):
            changed = [self._changed_int(name, v) for v in value]
            return value if None in changed else type(value)(changed)
        return value

    def _changed_dict(self, name: str, value: dict[Any, Any]) -> Any:
        if name == "compress_rates":  # A block of keys must be full before anything attends it.
            return {k: min(v, 16) for k, v in value.items()}
        if "rope" not in name:
            return None
        mrope = list(self.sizes.mrope)
        nope, rope = (self.values.get(f"qk_{part}_head_dim") or 0 for part in ("nope", "rope"))
        new: dict[Any, Any] = {}
        for key, entry in value.items():
            if isinstance(entry, dict):
                entry = self._changed_dict(name, entry)
            elif key == "mrope_section" and entry:  # Parts of the rotated half of a head.
                dim = 8 if rope else self.sizes.head_dim
                half = int(dim * value.get("partial_rotary_factor", 1.0)) // 2
                parts = [max(1, half * part // sum(entry)) for part in entry]
                entry = [*parts[:-1], half - sum(parts[:-1])]
            elif key == "partial_rotary_factor" and rope and entry == rope / (nope + rope):
                entry = 8 / (8 + self.sizes.head_dim)
            elif key == "original_max_position_embeddings":
                entry = min(entry, 512)
            new[key] = entry
        return new | ({"mrope_section": mrope} if mrope else {})
