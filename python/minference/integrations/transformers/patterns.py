# SPDX-License-Identifier: Apache-2.0
"""Patterns of a model: its attention layers, and which pattern each of their heads gets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from transformers import PreTrainedModel

from minference.config import HeadConfig, load_config
from minference.ops import count_key_tiles, min_sparse_seqlen
from minference.patterns import AShape, Dense, Pattern, to_tensor

__all__ = ["NAME", "pattern_table", "set_patterns", "wants_sparse"]

NAME = "minference"

# A call of fewer rows than one row block is dense: decoding, and the last rows of a chunked prompt.
# There is next to nothing to save, and vertical-slash could not estimate from so few rows.
MIN_ROWS = 64


@dataclass(frozen=True)
class LayerPatterns:
    """What :func:`set_patterns` leaves on an attention layer, as ``layer.minference_patterns``."""

    heads: tuple[Pattern, ...]
    min_seqlen: int | None  # None: what the backend of the call is known to need.

    @property
    def is_dense(self) -> bool:
        """Whether no call is ever sparse: a graph that is exported then serves all lengths."""
        return all(isinstance(pattern, Dense) for pattern in self.heads)


def set_patterns(
    model: nn.Module,
    patterns: Pattern | Sequence[Pattern] | HeadConfig | str | os.PathLike[str],
    *,
    min_seqlen: int | None = None,
) -> HeadConfig:
    """Give every query head of a model its pattern, and switch the model to minference.

    Calling it again replaces the patterns; ``model.set_attn_implementation("sdpa")`` switches back.
    A layer with a sliding window keeps to its window, exactly, wherever the window hides a key.

    Args:
        model: A transformers model, or a module that holds one: of ``torch.compile``,
            ``DataParallel``, PEFT or the user's own.
        patterns: One for all heads; one per query head, the same in every layer; a head config; or
            the path of one. A head config has an entry for every layer of the model's decoder, also
            for those without attention.
        min_seqlen: Calls over fewer keys are dense; the default is what the backend of the call is
            known to need (:func:`minference.min_sparse_seqlen`). So are those of fewer than 64
            query rows (decoding), whatever this says.

    Returns:
        The patterns of all layers and heads; those of one decoder after those of another, if the
        model has several.

    Raises:
        ValueError: A pattern is wrong, the patterns do not fit the model's layers and heads, or
            ``model`` holds no transformers model. Nothing has been changed then.
        NotImplementedError: The model does not let its attention be replaced.
    """
    if min_seqlen is not None and (not isinstance(min_seqlen, int) or min_seqlen < 0):
        msg = f"minference: min_seqlen: expected keys from 0 on, got {min_seqlen!r}"
        raise ValueError(msg)
    roots = _models_in(model)
    decoders = _find_decoders(model)
    if not decoders:
        msg = f"minference: {type(model).__name__}: expected causal attention layers, found none"
        raise NotImplementedError(msg)
    config = _fit(patterns, decoders)
    _check(config)
    _switch(roots, [layer.module for decoder in decoders for layer in decoder.layers])
    begin = 0
    for decoder in decoders:
        for layer in decoder.layers:
            heads = config.layers[begin + layer.index]
            layer.module.minference_patterns = LayerPatterns(heads, min_seqlen)  # type: ignore[assignment]
        begin += decoder.num_layers
    return config


# ---- What a call of a layer gets -----------------------------------------------------------------


def pattern_table(layer: nn.Module, q: Tensor, k: Tensor, window: int) -> Tensor:
    """Patterns of one call, int32 ``[num_heads_q or 1, 4]``. window 0: none."""
    if 0 < window < k.shape[1]:
        return to_tensor(AShape(sink=0, window=window))
    if (heads := _sparse_heads(layer, q.shape[1], k.shape[1], q.device)) is None:
        return to_tensor(Dense())
    return to_tensor(heads)


def wants_sparse(layer: nn.Module, query: Tensor, key: Tensor) -> bool:
    """Whether a call, of ``[batch, heads, rows, dim]``, would be sparse if the kernels took it."""
    return _sparse_heads(layer, query.shape[2], key.shape[2], query.device) is not None


def _sparse_heads(
    layer: nn.Module, rows: int, keys: int, device: torch.device
) -> tuple[Pattern, ...] | None:
    patterns: LayerPatterns | None = getattr(layer, "minference_patterns", None)
    if patterns is None or patterns.is_dense or rows < MIN_ROWS:
        return None
    least = patterns.min_seqlen
    if least is None:
        least = _min_sparse_seqlen(device.type, device.index or 0)
    return None if keys < least else patterns.heads


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _min_sparse_seqlen(device: str, index: int) -> int:
    # Of tensors without memory only shapes are computed.
    return 0 if device == "meta" else min_sparse_seqlen(torch.device(device, index))


# ---- Layers of a model ---------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionLayer:
    """A causal attention layer, as it describes itself."""

    module: nn.Module
    index: int  # Among the layers of its decoder, with those that have no attention.
    num_heads: int  # Query heads.


@dataclass(frozen=True)
class Decoder:
    """A stack of layers. A model may have several: of speech beside text, of drafts."""

    name: str  # The path of its list of layers in the model.
    num_layers: int
    layers: tuple[AttentionLayer, ...]


def _models_in(module: nn.Module) -> list[PreTrainedModel]:
    """The outermost transformers models in a module, itself if it is one.

    Raises:
        ValueError: There is none.
    """
    if isinstance(module, PreTrainedModel):
        return [module]
    if not isinstance(module, nn.Module):
        msg = f"minference: model: expected a transformers model, got {type(module).__name__}"
        raise ValueError(msg)
    found, inside = [], ""
    for name, child in module.named_modules():
        if isinstance(child, PreTrainedModel) and not (inside and name.startswith(inside)):
            found.append(child)
            inside = f"{name}."
    if not found:
        msg = (
            f"minference: model: expected a transformers model, got {type(module).__name__}, which"
            " holds none; pass the model itself"
        )
        raise ValueError(msg)
    return found


def _find_decoders(model: nn.Module) -> list[Decoder]:
    stacks: dict[str, list[AttentionLayer]] = {}
    sizes: dict[str, int] = {}
    for name, module in model.named_modules():
        if not _is_causal_attention(module):
            continue
        stack = _stack_of(model, name)
        layer = AttentionLayer(module, int(module.layer_idx), _num_heads(module))
        stacks.setdefault(stack, []).append(layer)
        blocks = model.get_submodule(stack)
        length = len(blocks) if isinstance(blocks, nn.ModuleList) else 0
        sizes[stack] = max(length, layer.index + 1, sizes.get(stack, 0))
    return [Decoder(name, sizes[name], tuple(layers)) for name, layers in stacks.items()]


def _is_causal_attention(module: Any) -> bool:
    is_layer = isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "config")
    return is_layer and getattr(module, "is_causal", False) is True


def _stack_of(model: nn.Module, name: str) -> str:
    """The path of the list of layers that a layer is in; without one, of what holds the layer."""
    path = name.split(".")
    for end in range(len(path) - 1, 0, -1):
        stack = ".".join(path[:end])
        if isinstance(model.get_submodule(stack), nn.ModuleList):
            return stack
    return ".".join(path[:-1])


HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "num_heads_q")


def _num_heads(layer: Any) -> int:
    """Query heads of a layer: as it says itself, else as its weights do, else its config."""
    for name in HEAD_COUNTS:
        if isinstance(count := getattr(layer, name, None), int):
            return count
    head_dim: Any = getattr(layer, "head_dim", None)
    groups: Any = getattr(layer, "num_key_value_groups", None)
    width: Any = getattr(getattr(layer, "k_proj", None), "out_features", None)
    if all(isinstance(size, int) for size in (head_dim, groups, width)) and width % head_dim == 0:
        return int(width // head_dim * groups)
    count = layer.config.num_attention_heads
    return int(count if isinstance(count, int) else count[layer.layer_idx])


def _fit(
    patterns: Pattern | Sequence[Pattern] | HeadConfig | str | os.PathLike[str],
    decoders: Sequence[Decoder],
) -> HeadConfig:
    """Return the patterns of every layer and head of every decoder, one decoder after another."""
    source = "patterns"
    if isinstance(patterns, (str, os.PathLike)):
        source = os.fspath(patterns)
        patterns = load_config(patterns)
    if isinstance(patterns, Pattern):
        one: tuple[Pattern, ...] = (patterns,)
        most = max(layer.num_heads for decoder in decoders for layer in decoder.layers)
        layers: list[tuple[Pattern, ...]] = []
        for decoder in decoders:
            counts = {layer.index: layer.num_heads for layer in decoder.layers}
            layers += [one * counts.get(i, most) for i in range(decoder.num_layers)]
        return HeadConfig(tuple(layers))
    if len(decoders) > 1:
        parts = ", ".join(f"{d.name} ({d.num_layers} layers)" for d in decoders)
        msg = (
            f"{source}: expected one pattern for all heads, for the model has several decoders:"
            f" {parts}; pass the part of the model that these patterns are for"
        )
        raise ValueError(msg)
    (decoder,) = decoders
    if not isinstance(patterns, HeadConfig):
        heads: tuple[Any, ...]
        heads = tuple(patterns) if isinstance(patterns, Sequence) else (patterns,)
        patterns = HeadConfig((heads,) * decoder.num_layers)
    # Layers without attention may have any number of heads.
    num_heads = [len(layer) for layer in patterns.layers[: decoder.num_layers]]
    num_heads += [0] * (decoder.num_layers - len(num_heads))
    for layer in decoder.layers:
        num_heads[layer.index] = layer.num_heads
    patterns.check_fits(num_heads, source)
    return patterns


def _check(config: HeadConfig) -> None:
    """Raise what the library raises at a call with one of these patterns."""
    with _disable_current_modes():
        for heads in dict.fromkeys(config.layers):
            q = torch.zeros(1, 1, len(heads), 8, dtype=torch.float32, device="cpu")
            count_key_tiles(q, q[:, :, :1], heads)


def _switch(roots: Sequence[PreTrainedModel], layers: Sequence[Any]) -> None:
    """Switch models to minference; all of them back again, if one or a layer does not follow."""
    models = [m for root in roots for m in root.modules() if isinstance(m, PreTrainedModel)]
    before = [(model.config, model.config._attn_implementation) for model in models]
    try:
        for root in roots:
            root.set_attn_implementation(NAME)
        if any(layer.config._attn_implementation != NAME for layer in layers):
            owner = type(roots[0]).__name__
            msg = f"minference: {owner} does not let its attention be replaced"
            raise NotImplementedError(msg)
    except Exception:
        for config, name in before:  # A config's comes before those of its parts, and sets them.
            config._attn_implementation = name
        raise
