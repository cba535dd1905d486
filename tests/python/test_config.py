# SPDX-License-Identifier: Apache-2.0
"""Head configurations: MInference's files, the patterns they map to, errors in damaged ones."""

from __future__ import annotations

import json

import minference
import pytest
from minference import AShape, BlockSparse, Dense, HeadConfig, TriShape, VerticalSlash

# Excerpts of files that MInference published: three heads of two layers, renumbered from 0.
LLAMA_3_8B_262K = """
[{"0": ["vertical_and_slash", 1000, 6096, 336999],
  "1": ["vertical_and_slash", 3500, 100, 1066920],
  "2": ["vertical_and_slash", 30, 800, 138213]},
 {"0": ["vertical_and_slash", 100, 800, 223568],
  "1": ["vertical_and_slash", 500, 700, 49023],
  "2": ["vertical_and_slash", 1000, 6096, 97401]}]
"""
PHI_3_MINI_128K = """
[{"0": ["vertical_and_slash", 1000, 6096, 0.4917],
  "1": ["stream_llm", 100, 800, 0.9652],
  "2": ["vertical_and_slash", 3500, 100, 0.6073]},
 {"0": ["stream_llm", 100, 800, 0.9],
  "1": ["block_sparse", 1000, 6096, 0.5],
  "2": ["vertical_and_slash", 100, 750, 0.8]}]
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "patterns.json"


def load(path, content, **model):
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return minference.load_config(path, **model)


def head(*entry):
    """A one-layer, one-head file."""
    return [{"0": list(entry)}]


# ---- What files map to ---------------------------------------------------------------------------


def test_vertical_and_slash(path):
    config = load(path, LLAMA_3_8B_262K, num_layers=2, num_heads=3)
    assert config.layers == (
        (VerticalSlash(1000, 6096), VerticalSlash(3500, 100), VerticalSlash(30, 800)),
        (VerticalSlash(100, 800), VerticalSlash(500, 700), VerticalSlash(1000, 6096)),
    )
    assert config.scores[0] == (336999, 1066920, 138213)
    assert len(config) == 2
    assert config[1][0] == VerticalSlash(100, 800)


def test_stream_llm_and_block_sparse(path):
    config = load(path, PHI_3_MINI_128K)
    assert config[0][1] == AShape(sink=100, window=800)
    assert config[1][1] == BlockSparse(100)  # MInference ignores the numbers beside the type.


def test_summary_says_what_maps_to_what(path):
    assert str(load(path, PHI_3_MINI_128K)).splitlines() == [
        "2 layers of 3 heads",
        "     2  stream_llm 100 800 -> AShape(sink=100, window=800)",
        "     1  vertical_and_slash 1000 6096"
        " -> VerticalSlash(vertical_size=1000, slash_size=6096)",
        "     1  vertical_and_slash 3500 100 -> VerticalSlash(vertical_size=3500, slash_size=100)",
        "     1  block_sparse 100 0 -> BlockSparse(top_k=100)",
        "     1  vertical_and_slash 100 750 -> VerticalSlash(vertical_size=100, slash_size=750)",
    ]


def test_heads_may_come_in_any_order_and_without_score(path):
    config = load(path, [{"1": ["stream_llm", 1, 2], "0": ["vertical_and_slash", 3, 4]}])
    assert config[0] == (VerticalSlash(3, 4), AShape(1, 2))


def test_saved_config_is_read_back(path):
    layers = (
        (VerticalSlash(1000, 6096), AShape(128, 1024), Dense()),
        (BlockSparse(7), TriShape(8, 512, 100), BlockSparse(100)),
    )
    config = HeadConfig(layers, ((0.5, 3, 1.0), (0.1, 0.2, 0.3)))
    minference.save_config(config, path)
    back = minference.load_config(path)
    assert back.layers == layers
    assert back.scores == config.scores


def test_saved_config_is_the_published_format(path):
    config = load(path, LLAMA_3_8B_262K)
    minference.save_config(config, path)
    assert json.loads(path.read_text()) == json.loads(LLAMA_3_8B_262K)


# ---- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "expected JSON, got"),
        ("\x00", "expected JSON, got"),
        ({"0": []}, "expected a list with one object per layer, got {"),
        ([], "expected a list with one object per layer, got []"),
        ([{"0": ["stream_llm", 1, 2]}, 7], "layer 1: expected an object, head number -> pattern"),
        ([{"0": ["dense", 0, 0], "x": ["dense", 0, 0]}], "layer 0, head x: expected heads 0 to 1"),
        ([{"0": ["dense", 0, 0], "2": ["dense", 0, 0]}], "layer 0, head 2: expected heads 0 to 1"),
        (
            [{"0": ["dense", 0, 0], "1": ["dense", 0, 0]}, {"0": ["dense", 0, 0]}],
            "layer 1, head 1: missing; expected heads 0 to 1",
        ),
        ('[{"0": ["dense", 0, 0], "0": ["dense", 0, 0]}]', 'got "0" twice'),
        (
            head("flex_prefill", 1, 2, 0.5),
            "layer 0, head 0: expected one of the types vertical_and_slash",
        ),
        (
            head(["dense"], 1, 2, 0.5),
            'layer 0, head 0: expected one of the types .*, got ["dense"]',
        ),
        (head("stream_llm", 1), "layer 0, head 0: expected [type, vertical_size, slash_size"),
        ([{"0": "dense"}], 'layer 0, head 0: expected [type, .*, got "dense"'),
        (head("stream_llm", 1, 2, 0.5, 6), "layer 0, head 0: expected 4 fields, got"),
        (head("tri_shape", 1, 2, 0.5), "layer 0, head 0: expected 5 fields, got"),
        (head("stream_llm", -1, 2, 0.5), "layer 0, head 0: expected sizes from 0 to"),
        (head("stream_llm", 1, 2**31, 0.5), "layer 0, head 0: expected sizes from 0 to"),
        (head("stream_llm", 1.5, 2, 0.5), "layer 0, head 0: expected sizes from 0 to"),
        (head("stream_llm", True, 2, 0.5), "layer 0, head 0: expected sizes from 0 to"),
        (head("stream_llm", "1", 2, 0.5), "layer 0, head 0: expected sizes from 0 to"),
        (head("tri_shape", 1, 2, 0.5, None), "layer 0, head 0: expected sizes from 0 to"),
        (head("stream_llm", 1, 2, "high"), "layer 0, head 0: expected a number as score"),
        (
            head("stream_llm", 1, 2, 0.5, {"sink": 3}),
            "layer 0, head 0: expected no options, got",
        ),
        (
            head("block_sparse", 1, 0, 0.5, {"last_q": 3}),
            'expected one of the options top_p, got "last_q"',
        ),
        (
            head("vertical_and_slash", 1, 2, 0.5, {"sink": "3"}),
            'expected a number as sink, got "3"',
        ),
        (head("vertical_and_slash", 1, {"sink": 3}), "expected [type, vertical_size, slash_size"),
    ],
)
def test_damaged_file_is_refused(path, content, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  # The text is matched below.
        load(path, content)
    text = str(error.value)
    assert text.startswith(str(path))
    for part in message.split(".*"):
        assert part in text


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"num_layers": 32}, "expected the model's 32 layers, got 2"),
        ({"num_heads": 4}, "layer 0, head 3: missing; expected heads 0 to 3"),
        ({"num_heads": 2}, "layer 0, head 2: expected heads 0 to 1"),
    ],
)
def test_file_that_does_not_fit_the_model_is_refused(path, model, message):
    with pytest.raises(ValueError, match=message):
        load(path, LLAMA_3_8B_262K, **model)


def test_options_come_back(path):
    layer = (
        VerticalSlash(1000, 6096, last_q=32, slash_p=0.95),
        BlockSparse(100, top_p=0.9),
        BlockSparse(7),
        VerticalSlash(1, 2),
    )
    minference.save_config(HeadConfig((layer,)), path)
    assert minference.load_config(path)[0] == layer
    assert '["vertical_and_slash", 1000, 6096, 1.0, {"last_q": 32, "slash_p": 0.95}]' in (
        path.read_text(encoding="utf-8")
    )


def test_missing_file_is_a_file_error(path):
    with pytest.raises(FileNotFoundError):
        minference.load_config(path)


def test_file_that_is_no_text_is_refused(path):
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected JSON, got 'utf-8' codec"):
        minference.load_config(path)
