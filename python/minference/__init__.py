# SPDX-License-Identifier: Apache-2.0
"""minference: sparse prefill attention. Finds the keys that matter, and attends only those.

::

    out, lse = minference.prefill_attn(q, k, v, minference.VerticalSlash(1000, 6096))

    minference.set_patterns(model, minference.load_config("patterns.json"))  # Hugging Face models
"""

from typing import TYPE_CHECKING, Any

from minference import integrations as _integrations
from minference._C import version as _version
from minference.config import HeadConfig, load_config, save_config
from minference.explain import Explanation, explain
from minference.ops import (
    a_shape_attn,
    block_index_attn,
    block_sparse_attn,
    count_key_tiles,
    density,
    estimate_blocks,
    estimate_vs,
    merge_attn,
    min_sparse_seqlen,
    prefill_attn,
    vs_attn,
    vs_sparse_attn,
)
from minference.patterns import AShape, BlockSparse, Dense, Pattern, TriShape, VerticalSlash

if TYPE_CHECKING:
    from minference.integrations.transformers import set_patterns

__version__ = _version()
_integrations.register_when_imported()

__all__ = [
    "AShape",
    "BlockSparse",
    "Dense",
    "Explanation",
    "HeadConfig",
    "Pattern",
    "TriShape",
    "VerticalSlash",
    "__version__",
    "a_shape_attn",
    "block_index_attn",
    "block_sparse_attn",
    "count_key_tiles",
    "density",
    "estimate_blocks",
    "estimate_vs",
    "explain",
    "load_config",
    "merge_attn",
    "min_sparse_seqlen",
    "prefill_attn",
    "save_config",
    "set_patterns",
    "vs_attn",
    "vs_sparse_attn",
]


def __getattr__(name: str) -> Any:
    """Import transformers only when something that needs it is asked for."""
    if name == "set_patterns":
        from minference.integrations.transformers import set_patterns

        return set_patterns
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
