# SPDX-License-Identifier: Apache-2.0
"""Head configs: one pattern per layer and query head, in the JSON that MInference publishes.

The file is a list with one object per layer: head number -> ``[type, vertical_size, slash_size,
score]``::

    [{"0": ["vertical_and_slash", 1000, 6096, 0.6], "1": ["stream_llm", 100, 800, 0.9]}, ...]

=========================== =========================================================
in the file                 here
=========================== =========================================================
vertical_and_slash v s      ``VerticalSlash(v, s)``
stream_llm sink window      ``AShape(sink, window)``
block_sparse any any        ``BlockSparse(100)``: MInference ignores the numbers
block_sparse top_k 0        ``BlockSparse(top_k)``: as :func:`save_config` writes it
dense 0 0                   ``Dense()``: written and read here only
tri_shape sink window _ n   ``TriShape(sink, window, n)``: written and read here only
=========================== =========================================================

An entry of the first or the third type may end with an object of the pattern's options, if they are
not the defaults: ``["vertical_and_slash", 1000, 6096, 0.6, {"last_q": 32}]``. The score is what the
search that made the file measured. It is kept, but nothing reads it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minference.patterns import AShape, BlockSparse, Dense, Pattern, TriShape, VerticalSlash

__all__ = ["HeadConfig", "load_config", "save_config"]

MAX_SIZE = 2**31 - 1
MINFERENCE_TOP_K = 100
TYPES = ("vertical_and_slash", "stream_llm", "block_sparse", "dense", "tri_shape")


@dataclass(frozen=True)
class HeadConfig:
    """The pattern of every query head of a model; ``print(config)`` sums it up.

    Attributes:
        layers: ``layers[layer][head]``.
        scores: Same shape, or empty: the numbers a search left in the file.

    Raises:
        ValueError: ``layers`` holds anything else.
    """

    layers: tuple[tuple[Pattern, ...], ...]
    scores: tuple[tuple[float, ...], ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.layers, Sequence) or isinstance(self.layers, str):
            msg = f"layers: expected a sequence of layers, got {type(self.layers).__name__}"
            raise ValueError(msg)
        for index, layer in enumerate(self.layers):
            is_sequence = isinstance(layer, Sequence) and not isinstance(layer, str)
            if not is_sequence or not all(isinstance(head, Pattern) for head in layer):
                msg = f"layers: layer {index}: expected a sequence of patterns, got {layer!r}"
                raise ValueError(msg)
        # Tuples, so that a config is hashable whatever sequences it was made of.
        object.__setattr__(self, "layers", tuple(map(tuple, self.layers)))

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: int) -> tuple[Pattern, ...]:
        return self.layers[layer]

    def __str__(self) -> str:
        counts = Counter(pattern for layer in self.layers for pattern in layer)
        num_heads = sorted({len(layer) for layer in self.layers})
        lines = [f"{len(self)} layers of {' or '.join(map(str, num_heads))} heads"]
        for pattern, count in counts.most_common():
            kind, *sizes = _entry(pattern, score=None)
            shown = " ".join(str(size) for size in (kind, *sizes) if size is not None)
            lines.append(f"{count:6d}  {shown} -> {pattern}")
        return "\n".join(lines)

    def check_fits(self, num_heads: Sequence[int], source: str = "patterns") -> None:
        """Raise ValueError unless there is one pattern for each of ``num_heads[layer]`` heads."""
        if len(self) != len(num_heads):
            msg = f"{source}: expected the model's {len(num_heads)} layers, got {len(self)}"
            raise ValueError(msg)
        for layer, (patterns, expected) in enumerate(zip(self.layers, num_heads, strict=True)):
            head = min(len(patterns), expected)
            if len(patterns) < expected:
                msg = (
                    f"{source}: layer {layer}, head {head}: missing; the model has {expected} heads"
                )
                raise ValueError(msg)
            if len(patterns) > expected:
                msg = f"{source}: layer {layer}, head {head}: the model has only {expected} heads"
                raise ValueError(msg)


def load_config(
    path: str | os.PathLike[str], *, num_layers: int | None = None, num_heads: int | None = None
) -> HeadConfig:
    """Read a head config, as MInference publishes them or :func:`save_config` writes them.

    Args:
        path: A JSON file.
        num_layers: Layers of the model, to check the file against; None: do not check.
        num_heads: Query heads of each layer of the model, likewise.

    Raises:
        ValueError: The file is damaged or does not fit the model; the message names layer and head.
            Or ``path`` is not a path.
        OSError: The file cannot be read.
    """
    _check_path(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_object_without_duplicates)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path}: expected JSON, got {error}"
        raise ValueError(msg) from None
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from None
    if not isinstance(content, list) or not content:
        msg = f"{path}: expected a list with one object per layer, got {_shown(content)}"
        raise ValueError(msg)

    # Without a model to say how many heads there are, the layer with the most does.
    most_heads = max(len(layer) if isinstance(layer, dict) else 0 for layer in content)
    layers, scores = [], []
    for index, layer in enumerate(content):
        entries = _heads_in_order(layer, num_heads or most_heads, f"{path}: layer {index}")
        layers.append(tuple(pattern for pattern, _ in entries))
        scores.append(tuple(score for _, score in entries))
    config = HeadConfig(tuple(layers), tuple(scores))
    if num_layers is not None or num_heads is not None:
        expected = len(layers) if num_layers is None else num_layers
        config.check_fits([num_heads or most_heads] * expected, source=str(path))
    return config


def save_config(config: HeadConfig, path: str | os.PathLike[str]) -> None:
    """Write a head config as JSON, one line per layer; :func:`load_config` reads it back.

    Raises:
        ValueError: An argument has another type.
        OSError: The file cannot be written.
    """
    if not isinstance(config, HeadConfig):
        msg = f"config: expected a HeadConfig, got {type(config).__name__}"
        raise ValueError(msg)
    _check_path(path)
    lines = []
    for index, layer in enumerate(config.layers):
        scores = config.scores[index] if config.scores else (1.0,) * len(layer)
        entries = zip(layer, scores, strict=True)
        heads = {str(head): _entry(*entry) for head, entry in enumerate(entries)}
        lines.append(json.dumps(heads))
    Path(path).write_text("[" + ",\n ".join(lines) + "]\n", encoding="utf-8")


def _check_path(path: object) -> None:
    if not isinstance(path, (str, os.PathLike)):
        msg = f"path: expected str or os.PathLike, got {type(path).__name__}"
        raise ValueError(msg)


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        msg = f"expected each head once in a layer, got {_shown(repeated[0])} twice"
        raise ValueError(msg)
    return dict(pairs)


def _heads_in_order(layer: Any, num_heads: int, where: str) -> list[tuple[Pattern, float]]:
    if not isinstance(layer, dict):
        msg = f"{where}: expected an object, head number -> pattern, got {_shown(layer)}"
        raise ValueError(msg)
    numbers = {str(head) for head in range(num_heads)}
    for key in layer:
        if key not in numbers:
            msg = f"{where}, head {key}: expected heads 0 to {num_heads - 1}"
            raise ValueError(msg)
    for head in range(num_heads):
        if str(head) not in layer:
            msg = f"{where}, head {head}: missing; expected heads 0 to {num_heads - 1}"
            raise ValueError(msg)
    return [_read_entry(layer[str(h)], f"{where}, head {h}") for h in range(num_heads)]


def _read_entry(entry: Any, where: str) -> tuple[Pattern, float]:
    options = {}
    if isinstance(entry, list) and entry and isinstance(entry[-1], dict):
        *entry, options = entry
    if not isinstance(entry, list) or len(entry) < 3:
        msg = f"{where}: expected [type, vertical_size, slash_size, score], got {_shown(entry)}"
        raise ValueError(msg)
    kind, first, second, score, *last = [*entry, 1.0] if len(entry) == 3 else entry
    if kind not in TYPES:
        msg = f"{where}: expected one of the types {', '.join(TYPES)}, got {_shown(kind)}"
        raise ValueError(msg)
    if len(last) != (kind == "tri_shape"):
        msg = f"{where}: expected {5 if kind == 'tri_shape' else 4} fields, got {_shown(entry)}"
        raise ValueError(msg)
    for size in (first, second, *last):
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            msg = f"{where}: expected sizes from 0 to {MAX_SIZE}, got {_shown(entry)}"
            raise ValueError(msg)
    if type(score) not in (int, float):
        msg = f"{where}: expected a number as score, got {_shown(score)}"
        raise ValueError(msg)
    return _with_options(_pattern(kind, first, second, last), options, where), score


def _with_options(pattern: Pattern, options: dict[str, Any], where: str) -> Pattern:
    known = {f.name: f.type for f in dataclasses.fields(pattern)}
    for name in pattern.size_names():
        del known[name]
    for name, value in options.items():
        if name not in known:
            expected = f"one of the options {', '.join(known)}" if known else "no options"
            msg = f"{where}: expected {expected}, got {_shown(name)}"
            raise ValueError(msg)
        if type(value) not in ((int,) if known[name] == "int" else (int, float)):
            msg = f"{where}: expected a number as {name}, got {_shown(value)}"
            raise ValueError(msg)
    return dataclasses.replace(pattern, **options)


def _pattern(kind: str, first: int, second: int, last: list[int]) -> Pattern:
    match kind:
        case "vertical_and_slash":
            return VerticalSlash(first, second)
        case "stream_llm":
            return AShape(first, second)
        case "block_sparse":
            return BlockSparse(first if second == 0 and first > 0 else MINFERENCE_TOP_K)
        case "tri_shape":
            return TriShape(first, second, *last)
        case _:
            return Dense()


def _entry(pattern: Pattern, score: float | None) -> list[Any]:
    options = [pattern.options] if pattern.options else []
    match pattern:
        case VerticalSlash(vertical_size, slash_size):
            return ["vertical_and_slash", vertical_size, slash_size, score, *options]
        case AShape(sink, window):
            return ["stream_llm", sink, window, score]
        case BlockSparse(top_k):
            return ["block_sparse", top_k, 0, score, *options]
        case TriShape(sink, window, last):
            return ["tri_shape", sink, window, score, last]
        case _:
            return ["dense", 0, 0, score]


def _shown(value: Any) -> str:
    """Return the JSON of a value, cut to fit into a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
