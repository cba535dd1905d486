# SPDX-License-Identifier: Apache-2.0
"""Hugging Face transformers: ``attn_implementation="minference"``.

:func:`set_patterns` is all a user needs. Who wants dense attention by these kernels, or calls
``set_patterns`` later, passes the name to ``from_pretrained``; ``import minference`` has made it
known.

What happens to a call of a model, in order:

1. Once per forward and kind of layer the model asks :func:`minference_mask` which keys its rows may
   see (:mod:`.masks`). A causal mask, with a sliding window or without, is not written out
   (:mod:`.causal_mask`); it behaves as if it were, whatever the model does to it. Any other mask is
   what eager attention would get.
2. Every layer calls :func:`minference_attention_forward` with q, k, v and the mask. A keyword
   argument that may change the result is served or refused by name (:mod:`.arguments`). A mask of
   the user's own is read, None is plain causal, and keys that the model has chosen itself
   (:mod:`.key_lists`) become part of the mask.
3. A causal mask is split into calls of the kernels: sequences that lie alike, without their
   padding; rows after a sequence's last key see all its keys, densely. Heads get their pattern
   (:mod:`.patterns`); those of a layer whose window hides a key attend the window, exactly; those
   of a call that is short or decodes are dense. Sinks scale the result by way of lse.
4. Everything else is computed densely (:mod:`.dense`), and says so where patterns were asked for:
   by SDPA with the mask, or with softcap or sinks as the model's eager attention would, some rows
   at a time.

Dropout, continuous batching and arguments that nobody here has heard of are refused.
"""

from __future__ import annotations

import transformers
from packaging.version import Version

MIN_TRANSFORMERS = "5.4"
if Version(transformers.__version__) < Version(MIN_TRANSFORMERS):
    _found = transformers.__version__
    _msg = f"minference: expected transformers {MIN_TRANSFORMERS} or later, got {_found}"
    raise ImportError(_msg)

from transformers import AttentionInterface, AttentionMaskInterface  # noqa: E402

from minference.integrations.transformers.attention import (  # noqa: E402
    minference_attention_forward,
)
from minference.integrations.transformers.masks import minference_mask  # noqa: E402
from minference.integrations.transformers.patterns import NAME, set_patterns  # noqa: E402

__all__ = ["NAME", "minference_attention_forward", "minference_mask", "register", "set_patterns"]


def register() -> None:
    """Make ``attn_implementation="minference"`` known; importing this module has done it."""
    AttentionInterface.register(NAME, minference_attention_forward)
    AttentionMaskInterface.register(NAME, minference_mask)


register()
