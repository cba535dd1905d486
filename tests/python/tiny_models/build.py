# SPDX-License-Identifier: Apache-2.0
"""A tiny random model of any family that transformers has registered for text."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import modeling_auto

from tiny_models.overrides import OVERRIDES
from tiny_models.shrink import Sizes, shrunk

TASKS = ["CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_TEXT_TO_TEXT"]
TASKS += ["MULTIMODAL_LM"]


class CannotBuild(Exception):
    """No variant of the generic configuration gives a model that runs; the text says why."""


@dataclass(frozen=True, order=True)
class Entry:
    """One row of the sweep: a model type and one of its classes."""

    family: str
    class_name: str


def entries() -> list[Entry]:
    """Every family that transformers lists for the tasks above, with each class that it has."""
    found = set()
    for task in TASKS:
        names = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {})
        for family, classes in names.items():
            for class_name in [classes] if isinstance(classes, str) else classes:
                found.add(Entry(family, class_name))
    return sorted(found)


# Tried in turn until a model can be built and its eager attention runs.
VARIANTS = [
    Sizes(),
    Sizes(heads_kv=4),  # No grouped queries: latent attention, and older families.
    Sizes(features=False),
    Sizes(features=False, heads_kv=4),
    Sizes(heads_kv=4, inter=64),
    Sizes(heads_kv=4, fill=True),
    Sizes(eos=96),
    Sizes(heads_kv=4, eos=96, inter=64),
]


# Rotary sections for time, height and width: their defaults are in code, not in a config.
MROPE_ERROR = re.compile(r"expects split_sizes to sum exactly to (\d+) .* split_sizes=\[([^]]*)\]")


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def build(entry: Entry) -> Any:
    """The model with eager attention, in float32 on the CPU, in eval mode."""
    errors: list[str] = []
    for sizes in VARIANTS:
        try:
            return _build(entry, sizes)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
            if found := MROPE_ERROR.search(str(error)):
                mrope = tuple(_shares(int(found[1]), len(found[2].split(","))))
                with contextlib.suppress(Exception):
                    return _build(entry, dataclasses.replace(sizes, mrope=mrope))
    raise CannotBuild(" | ".join(dict.fromkeys(errors)))


def _build(entry: Entry, sizes: Sizes) -> Any:
    from tiny_models.inputs import find_call

    override = OVERRIDES.get(entry.family)
    if override:
        sizes = dataclasses.replace(sizes, **override.sizes)
        sizes = dataclasses.replace(sizes, extra=override.fields)
    model_class = getattr(transformers, entry.class_name)
    config = shrunk(CONFIG_MAPPING[entry.family](**(override.defaults if override else {})), sizes)
    config = _config_for(model_class, config)
    if hasattr(config, "is_decoder") and not config.is_encoder_decoder:
        config.is_decoder = True  # BERT and similar models are encoders by default.
    config._attn_implementation = "eager"
    with nan_where_uninitialised():
        torch.manual_seed(0)
        model = model_class(config).eval()
    if override and override.part:
        model = getattr(model, override.part)
    torch.manual_seed(1)
    make_attention_matter(model, sizes.std)
    model.requires_grad_(False)
    find_call(model)
    return model


def _config_for(model_class: Any, config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of a configuration that builds this class: a larger model's text model."""
    wanted = model_class.config_class
    if wanted is None or isinstance(config, wanted):
        return config
    for part in vars(config).values():
        if isinstance(part, wanted):
            return part
    return config


@contextlib.contextmanager
def nan_where_uninitialised() -> Iterator[None]:
    """Make unwritten memory read as NaN, so that it can be found and models are repeatable."""
    was, warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)


def make_attention_matter(model: nn.Module, std: float) -> None:
    """Draw the parameters that the class left unwritten, zero, or too small to show anything."""
    for name, parameter in model.named_parameters():
        data = parameter.data
        if not data.is_floating_point() or data.numel() == 0:
            continue
        is_gate = re.search(r"(norm|bias|scale|ln)[^.]*(\.(weight|bias))?$", name) is None
        if not data.isfinite().all() or "sink" in name:
            nn.init.normal_(data, std=1.0 if data.ndim < 2 else std)
        elif data.ndim >= 2 and data.shape[-1] > 1 and is_gate and data.std() < std / 3:
            nn.init.normal_(data, std=std)
        elif data.ndim < 2 and is_gate and not data.any():
            nn.init.normal_(data, std=0.5)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and buffer.isnan().any():
            msg = f"buffer {name} is not initialised"
            raise CannotBuild(msg)
