# SPDX-License-Identifier: Apache-2.0
"""Inputs of a model: token ids, and whatever else its forward requires."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from tiny_models.shrink import FIRST_SPECIAL_ID

SMOKE_LENGTH = 12


@dataclass(frozen=True)
class Call:
    """How a model takes text; ``others`` are inputs that do not depend on it."""

    is_encoder_decoder: bool
    has_encoder_text: bool = False  # Its encoder reads token ids; otherwise it reads `others`.
    streams: int = 0  # Codebooks that are predicted in parallel, ids [batch, seqlen, streams].
    folded: bool = False  # They are folded into the batch: ids [batch * streams, seqlen].
    may_cache: bool = True
    prefix: tuple[int, ...] = ()  # Tokens that must open every text, which an image replaces.
    # A tensor has a row per sequence; a function gets (batch, rows of text, rows for the encoder).
    others: dict[str, Tensor | Callable[..., Tensor]] = field(default_factory=dict)

    @property
    def ids_name(self) -> str:
        return "decoder_input_ids" if self.is_encoder_decoder else "input_ids"

    @property
    def mask_name(self) -> str:
        return "decoder_attention_mask" if self.is_encoder_decoder else "attention_mask"

    def encoder_ids(self, batch: int, seqlen: int) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randint(2, FIRST_SPECIAL_ID, (batch, seqlen), generator=generator)

    def ids(self, batch: int, seqlen: int, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = [batch, seqlen, self.streams] if self.streams else [batch, seqlen]
        if self.folded:
            shape = [batch * self.streams, seqlen]
        ids = torch.randint(2, FIRST_SPECIAL_ID, shape, generator=generator)
        if self.prefix:
            ids[:, : len(self.prefix)] = torch.tensor(self.prefix)
        return ids

    def other_inputs(self, batch: int, seqlen: int, encoder_seqlen: int = 0) -> dict[str, Tensor]:
        """All inputs except the ids and masks of text."""
        return {
            name: value[:batch]
            if isinstance(value, Tensor)
            else value(batch, seqlen, encoder_seqlen)
            for name, value in self.others.items()
        }


@torch.no_grad()
def find_call(model: Any) -> Call:
    """Find the first way to call the model that works with a batch of 2; raise the first error."""
    error: Exception | None = None
    for call in _candidates(model):
        try:
            inputs = call.other_inputs(2, SMOKE_LENGTH, SMOKE_LENGTH)
            if call.has_encoder_text:
                inputs["input_ids"] = call.encoder_ids(2, SMOKE_LENGTH)
            inputs[call.ids_name] = call.ids(2, SMOKE_LENGTH)
            if not call.may_cache:
                inputs["use_cache"] = False
            logits = model(**inputs).logits
            if not logits.isfinite().all():
                msg = "eager attention gives logits that are not finite"
                raise ValueError(msg)
            return call
        except Exception as caught:
            error = error or caught
    assert error is not None
    raise error


def _candidates(model: Any) -> Iterator[Call]:
    config = model.config
    is_encoder_decoder = bool(config.is_encoder_decoder)
    names = set(inspect.signature(model.forward).parameters)
    if is_encoder_decoder and "input_ids" in names:
        yield Call(True, has_encoder_text=True)
    elif not is_encoder_decoder:
        yield Call(False)
        yield Call(False, may_cache=False)
    for name in ("num_codebooks", "num_channels", "n_codebooks", "num_quantizers"):
        streams = _find(config, name)
        if streams and not is_encoder_decoder:
            yield Call(False, streams=streams, folded=True)
            yield Call(False, streams=streams)
            yield Call(False, streams=streams + 1)
        elif streams and "input_ids" in names:
            yield Call(True, has_encoder_text=True, streams=streams)
    for others in _other_inputs(config, names):
        yield Call(is_encoder_decoder, others=others)
        if is_encoder_decoder and "input_ids" in names:
            yield Call(True, has_encoder_text=True, others=others)
        tokens = (
            _find(config, f"{what}_token_{form}")
            for what in ("image", "video")
            for form in ("id", "index")
        )
        for token in filter(None, tokens):
            if count := _find(config, "num_query_tokens"):
                yield Call(is_encoder_decoder, prefix=(token,) * count, others=others)


def _other_inputs(config: PreTrainedConfig, names: set[str]) -> Iterator[dict[str, Tensor]]:
    """Images, audio and related inputs, as noise in the shapes that such towers take."""
    torch.manual_seed(3)
    if "pixel_values" in names:
        size = _find(config, "image_size") or 224
        height, width = (size, size) if isinstance(size, int) else size
        image = torch.randn(2, _find(config, "num_channels") or 3, height, width)
        with_ids = {"qformer_input_ids"} & names
        more = {name: torch.randint(2, FIRST_SPECIAL_ID, (2, 8)) for name in with_ids}
        yield {"pixel_values": image} | more
        yield {"pixel_values": image[:, None]} | more
        if with_ids:
            yield {"pixel_values": torch.stack([image] * 4, dim=1)} | more  # A video.
        if "image_attention_mask" in names:
            see = {"image_attention_mask": lambda b, n, _: torch.ones(b, n, 1, dtype=torch.int64)}
            yield {"pixel_values": image[:, None]} | see
        if "image_embeds_position_mask" in names:
            count = _find(config, "latent_query_num") or 1
            is_image = {
                "image_embeds_position_mask": lambda b, n, _: (torch.arange(n) < count).repeat(b, 1)
            }
            yield {"pixel_values": image} | is_image
    if "bbox" in names:
        yield {"bbox": lambda b, _, n: torch.arange(4 * b * n).reshape(b, n, 4) % 100 / 100}
    if "flattened_patches" in names:
        patches = torch.randn(2, 20, 2 + (_find(config, "patch_embed_hidden_size") or 768))
        patches[:, :, :2] = torch.arange(20)[:, None] % 8 + 1
        yield {"flattened_patches": patches}
    if "input_features" in names:
        named = ("num_mel_bins", "feature_size", "input_feat_per_channel", "input_dim")
        widths = [_find(config, name) for name in (*named, "feature_projection_input_dim")]
        for width in dict.fromkeys([*filter(None, widths), 80, 128]):
            for frames in (256, 64, 3000):
                yield {"input_features": torch.randn(2, width, frames)}
                yield {"input_features": torch.randn(2, frames, width)}
    if "encoder_inputs_embeds" in names:
        rate, width = _find(config, "downsample_factor") or 1, _find(config, "hidden_size")
        noise = torch.randn(2, 4096, width)
        yield {"encoder_inputs_embeds": lambda b, n, _: noise[:b, : n * rate]}
    for name in ("input_values", "input_features"):
        if name in names:
            yield {name: torch.randn(2, 4000) * 0.1}


def _find(config: PreTrainedConfig, name: str) -> Any:
    """A field of a configuration or, if it has none, of its parts."""
    value = getattr(config, name, None)
    if value is not None:
        return value
    parts = (part for part in vars(config).values() if isinstance(part, PreTrainedConfig))
    return next((found for part in parts if (found := _find(part, name)) is not None), None)
