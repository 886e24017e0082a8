"""The commands that look at models: planted heads, planted equality, and every way to ask wrongly."""

import json
import re
import subprocess
import sys

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from atlaskit import cli, measure, models, runs
from atlaskit.cli import asking
from atlaskit.cli.compare import _shared
from atlaskit.cli.words import by_words, place_of
from atlaskit.records import Tokens


def call(*arguments, **how):
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments], **how)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def table(path):
    """The rows of a JSON export by what names them."""
    rows = json.loads(path.read_text())["rows"]
    names = [name for name in ("quantity", "null", "layer", "head", "part") if name in rows[0]]
    return {tuple(row[name] for name in names): row for row in rows}


def save(folder, net, tokenizer):
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The planted model as a folder, and three texts of its words, each 64 tokens long."""
    model = models.planted()
    folder = save(tmp_path_factory.mktemp("planted"), model.net, model.tokenizer)
    words = [word for word in model.tokenizer.get_vocab() if word.isalpha()]
    draw = torch.Generator().manual_seed(0)
    picks = torch.randint(len(words), (3, 64), generator=draw).tolist()
    return folder, [" ".join(words[i] for i in row) for row in picks]


@pytest.fixture(scope="module")
def analyzed(planted, tmp_path_factory):
    """One call of analyze, three texts in one file, every format into a folder that is not there yet."""
    folder, texts = planted
    out = tmp_path_factory.mktemp("analyzed")
    (out / "texts.txt").write_text("\n\n".join(texts) + "\n")
    outputs = [out / "new" / "er" / f"one.{kind}" for kind in ("html", "npz", "json", "csv", "parquet")]
    asked = [word for path in outputs for word in ("-o", path)]
    nulls = ("--nulls", "ignorant,permuted,toeplitz,column,untrained", "--patterns")
    result = call("analyze", folder, "--file", out / "texts.txt", "--lines", *nulls, *asked)
    assert result.exit_code == 0, result.output
    return result, out / "new" / "er"


def test_planted_heads_are_found_and_no_others(analyzed):
    found = table(analyzed[1] / "one.json")
    believed = {
        (layer, head) for layer in (0, 1) for head in range(5) if found["D_1", "permuted", layer, head]["differs"]
    }
    assert {models.PLANTED[name] for name in ("previous_token", "first_token", "own_token")} <= believed
    assert not believed & set(models.UNIFORM)
    for name in ("previous_token", "first_token", "own_token"):
        row = found[name, "ignorant", *models.PLANTED[name]]
        assert row["value"] == pytest.approx(1, abs=1e-5)
        assert row["null_value"] < 0.1


@pytest.mark.parametrize("head", models.UNIFORM[:2])
def test_an_ignorant_head_equals_every_null_but_the_untrained(analyzed, head):
    found = table(analyzed[1] / "one.json")
    for null in ("ignorant", "permuted", "toeplitz", "column"):
        row = found["relative_D_1", null, *head]
        assert (row["value"], row["null_value"]) == (pytest.approx(2, abs=1e-5), pytest.approx(2, abs=1e-5))
    assert found["entropy", "ignorant", *head]["value"] == found["entropy", "ignorant", *head]["null_value"]


def test_the_npz_loses_nothing_and_the_others_say_the_same(analyzed, planted):
    result = runs.Result.load(analyzed[1] / "one.npz")
    model = models.load(planted[0])
    (source,) = result.sources
    assert source.model_hash == models.fingerprint(model)
    assert [text.text for text in source.texts] == planted[1]
    assert result.parameters["nulls"] == ["ignorant", "permuted", "toeplitz", "column", "untrained"]
    seen = models.capture(model, planted[1][2])
    torch.testing.assert_close(result["pattern_2"], torch.stack([layer.pattern for layer in seen.layers]))
    assert torch.equal(result["support_2"][0], seen.layers[0].support)
    fit = measure.generalized_dimensions(measure.coarse_grain(seen.layers[0].pattern), [0.5, 1.0, 2.0])
    torch.testing.assert_close(result["box_entropy"][2, 0], fit.log_value, equal_nan=True)
    rows = json.loads((analyzed[1] / "one.json").read_text())["rows"]
    assert [row["value"] for row in rows] == pytest.approx(result["value"].flatten().tolist(), nan_ok=True)
    lines = (analyzed[1] / "one.csv").read_text().splitlines()
    assert len(lines) == len(rows) + 1
    assert set(lines[0].split(",")) == set(rows[0])


def test_the_summary_counts_heads_and_the_page_opens_without_a_network(analyzed):
    result, folder = analyzed
    assert "10 heads, 3 texts of 64 to 64 tokens" in result.output
    page = (folder / "one.html").read_text()
    assert "relative D 1" in page
    markup = re.sub(r"(<script\b[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)  # Bokeh's own code speaks of images
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", markup)


def test_what_can_come_to_nothing_for_want_of_texts_or_draws_is_said(planted, tmp_path):
    folder, texts = planted
    asked = ("analyze", folder, *(part for text in (texts * 2)[:5] for part in ("--text", text)))
    told = call(*asked, "--draws", 19).output
    assert "p over 5 texts is about 0.062 at best, so no head can differ; give six or more" in told
    assert "with 19 draws no p falls below 0.05: unless 10 of 10 heads differ" in told
    enough = call(*asked, "--text", texts[0], "--draws", 99).output
    assert "no p" not in enough


def test_layers_heads_and_orders_can_be_chosen_and_the_seed_repeats(planted, tmp_path):
    folder, texts = planted
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        wanted = ("--layers", "0", "--heads", "0,3-4", "--q", "3", "--seed", seed, "--draws", 19)
        assert call("analyze", folder, "--text", texts[0], *wanted, "-o", tmp_path / f"{name}.json").exit_code == 0
    first, same, other = (json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in "abc")
    assert first == same
    assert first != other
    assert {(row["layer"], row["head"]) for row in first} == {(0, 0), (0, 3), (0, 4)}
    assert {row["quantity"] for row in first} >= {"D_3", "relative_D_3", "level_3"}


def test_one_text_has_values_and_p_but_no_interval(planted, tmp_path):
    folder, texts = planted
    call("analyze", folder, "--text", texts[0], "-o", tmp_path / "one.json")
    row = table(tmp_path / "one.json")["D_1", "permuted", *models.PLANTED["previous_token"]]
    assert (row["low"], row["high"], row["n_texts"]) == (None, None, 1)
    assert row["p"] == pytest.approx(1 / 200)
    assert row["null_low"] < row["null_value"] < row["null_high"]


def test_a_text_too_short_for_a_dimension_says_so_and_keeps_the_rest(planted, tmp_path):
    folder, texts = planted
    result = call("analyze", folder, "--text", " ".join(texts[0].split()[:9]), "-o", tmp_path / "one.json")
    assert result.exit_code == 0
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["notes"][0].startswith("10 of 10 dimensions are undefined, because 9 tokens")
    found = table(tmp_path / "one.json")
    assert found["D_1", "permuted", 0, 0]["value"] is None
    assert found["previous_token", "ignorant", 0, 0]["value"] == pytest.approx(1, abs=1e-5)


def test_text_can_be_piped_in(planted, tmp_path):
    folder, texts = planted
    for extra in ((), ("--file", "-")):
        asked = ("--draws", 19, "--q", 1, "--layers", 0, "-o", tmp_path / "one.npz")
        result = call("analyze", folder, *extra, *asked, input=texts[1])
        assert result.exit_code == 0
        assert runs.Result.load(tmp_path / "one.npz").sources[0].texts[0].text == texts[1]


def test_a_cut_text_is_noted_in_the_result_and_on_stderr(planted, tmp_path):
    folder, texts = planted
    asked = ("--text", f"{texts[0]} {texts[1]}", "--draws", 19, "--q", 1)
    result = call("analyze", folder, *asked, "-o", tmp_path / "one.npz")
    assert "note: the text has 128 tokens and the model reads 64" in result.stderr
    assert "the last 64 were cut" in runs.Result.load(tmp_path / "one.npz").notes[0]


def test_quiet_prints_nothing_at_all(planted, tmp_path):
    folder, texts = planted
    program = "import sys; sys.argv[0] = 'atlaskit'; from atlaskit.cli import main; main()"
    asked = ["analyze", folder, "--text", f"{texts[0]} {texts[1]}", "--quiet", "-o", tmp_path / "x/one.csv"]
    done = subprocess.run([sys.executable, "-c", program, *map(str, asked)], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert (tmp_path / "x/one.csv").stat().st_size > 1000


def test_a_picture_that_fails_costs_no_result(planted, tmp_path, monkeypatch):
    def broken(_):
        raise KeyError("no such colour")

    monkeypatch.setattr("atlaskit.cli.pictures.analyzed", broken)
    outputs = ("-o", tmp_path / "one.html", "-o", tmp_path / "one.npz")
    result = call("analyze", planted[0], "--text", planted[1][0], "--draws", 19, "--q", 1, *outputs)
    assert result.exit_code == 3
    assert "one.html failed ('no such colour'); the results are written" in result.stderr
    assert runs.Result.load(tmp_path / "one.npz").command == "analyze"


WRONG = [
    (["--text", "  "], "text 0 is empty"),
    (["--text", "cat"], "text 0: the text is 1 token long"),
    (["--text", "cat fish"], "text 0: the tokenizer cannot read 'cat fish'"),
    ([], "text 0 is empty"),
    (["--lines"], "no line with a text"),
    (["--file", "nowhere.txt"], "'nowhere.txt' does not exist"),
    (["--file", "latin.txt"], "latin.txt is not text in UTF-8 (invalid continuation byte at byte 1)"),
    (["-o", "one.xlsx"], "ends on no format that is known; end it on one of .npz, .json, .csv, .parquet, .html"),
    (["-o", "latin.txt/one.json"], "latin.txt/one.json cannot be written"),
    (["--layers", "7"], "has layers 0 to 1; there is no 7"),
    (["--heads", "0-9"], "has heads 0 to 4; there is no 5"),
    (["--heads", "one"], "'one' is not a list of numbers from zero, such as 0,2-4"),
    (["--layers", "3-1"], "'3-1' is not a list of numbers"),
    (["--q", "1,zwei"], "'1,zwei' is not a list of numbers, such as 0.5,1,2"),
    (["--q", "inf"], "not finite"),
    (["--nulls", "ignorant,chance"], "there is no null chance; there are ignorant, permuted"),
    (["--draws", "5"], "5 is not in the range x>=19"),
    (["--dtype", "int8"], "'int8' is not one of"),
]


@pytest.mark.parametrize(("asked", "message"), WRONG, ids=[" ".join(asked) or "nothing" for asked, _ in WRONG])
def test_a_wrong_request_exits_with_2_and_leaves_nothing(planted, tmp_path, monkeypatch, asked, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes("Bär auf Wiese".encode("latin-1"))
    given = asked if {"--text", "--file"} & set(asked) else [*asked, "--text", planted[1][0]]
    if not asked or asked == ["--lines"]:
        given = asked
    result = call("analyze", planted[0], *given, input="\n")
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert [path.name for path in tmp_path.iterdir()] == ["latin.txt"]


def test_a_model_that_cannot_be_had_or_is_broken_exits_with_1(planted, tmp_path):
    missing = call("analyze", tmp_path / "nowhere", "--text", "a b")
    assert missing.exit_code == 1
    assert "nowhere could not be loaded: there is no folder" in missing.output
    broken = models.planted()
    with torch.no_grad():
        broken.net.transformer.h[0].attn.c_attn.weight[0, 0] = float("nan")
    folder = save(tmp_path / "broken", broken.net, broken.tokenizer)
    result = call("analyze", folder, "--text", planted[1][0], "-o", tmp_path / "one.json")
    assert result.exit_code == 1
    assert "weight 'transformer.h.0.attn.c_attn.weight' holds 1 NaN" in result.output
    assert not (tmp_path / "one.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_exits_with_1(planted):
    result = call("analyze", planted[0], "--text", planted[1][0], "--device", "cuda")
    assert result.exit_code == 1
    assert "could not be loaded" in result.output


def test_a_model_that_reads_one_text_and_writes_another_is_a_wrong_request(planted, tmp_path):
    net = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
                                              decoder_start_token_id=0))  # fmt: skip
    folder = save(tmp_path / "t5", net, models.planted().tokenizer)
    result = call("analyze", folder, "--text", planted[1][0])
    assert result.exit_code == 2
    assert "reads one text and writes another; in Python: models.capture(model, text, source=" in result.output


def test_without_a_text_at_a_terminal_it_says_what_to_give(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(click.UsageError, match="give --text TEXT or --file FILE, or pipe one in"):
        asking.the_texts((), (), lines=False)


# Compare: texts whose words are one letter repeated, so that a tokenizer of words and one of letters can know the same.

LETTERS = "abcdefgh"


def compared(first, second, texts, out, *more):
    asked = [word for text in texts for word in ("--text", text)]
    result = call("compare", first, second, *asked, "-o", out, *more)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """One layer without positions, by words and by letters after a BOS token: equal embeddings for equal letters."""
    draw = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 5, (3, 48), generator=draw).tolist()
    letters = torch.randint(len(LETTERS), (3, 48), generator=draw).tolist()
    texts = [" ".join(LETTERS[c] * n for c, n in zip(*row, strict=True)) for row in zip(letters, lengths, strict=True)]
    words = ["[bos]", *(letter * n for letter in LETTERS for n in range(1, 5))]
    embedding = torch.randn(1 + len(LETTERS), 32, generator=draw)
    folders, layers = [], None
    torch.manual_seed(1)
    for vocabulary, cut in ((words, Whitespace()), (["[bos]", *LETTERS], Split(Regex("[a-z]"), "isolated"))):
        tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[bos]"))
        tokenizer.pre_tokenizer = Sequence([Whitespace(), cut])
        if len(vocabulary) < len(words):
            tokenizer.post_processor = TemplateProcessing("[bos] $A", special_tokens=[("[bos]", 0)])
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[bos]", bos_token="[bos]")
        net = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(vocabulary), n_positions=256, n_embd=32, n_layer=1, n_head=4,
                       initializer_range=0.6, bos_token_id=0, eos_token_id=0)
        )  # fmt: skip
        with torch.no_grad():
            net.transformer.wpe.weight.zero_()
            which = [0, *(1 + LETTERS.index(word[0]) for word in vocabulary[1:])]
            net.transformer.wte.weight.copy_(embedding[which])
            net.transformer.h.load_state_dict(layers := layers or net.transformer.h.state_dict())
        folders.append(save(tmp_path_factory.mktemp("twin"), net, fast))
    return folders, texts


def test_neither_a_bos_token_nor_another_tokenizer_changes_anything(twins, tmp_path):
    (by_word, by_letter), texts = twins
    result = compared(by_word, by_letter, texts, tmp_path / "one.npz")
    found = runs.Result.load(tmp_path / "one.npz")
    lengths = [[len(text) for text in source.texts] for source in found.sources]
    assert all(letters > 2 * words for words, letters in zip(*lengths, strict=True))
    known = ~found["difference"].isnan()
    assert known[:, 0].sum() >= 15
    torch.testing.assert_close(found["difference"][known], torch.zeros(int(known.sum())), atol=2e-4, rtol=0)
    assert not found["differs"].any()
    assert float(found["between_words_first"].mean()) == pytest.approx(1, abs=1e-6)
    assert float(found["between_words_second"].mean()) < 0.999  # the BOS token has its share
    assert "0 of 4" in result.output


def test_a_model_that_differs_is_told_apart_with_an_interval(twins, tmp_path):
    (by_word, _), texts = twins
    sharp = models.load(by_word)
    with torch.no_grad():
        sharp.net.transformer.h[0].attn.c_attn.weight[:, :32] *= 3  # sharper queries, so less entropy
    folder = save(tmp_path / "sharp", sharp.net, sharp.tokenizer)
    compared(by_word, folder, [f"{a} {b}" for a, b in zip(texts, texts[1:] + texts[:1], strict=True)] + texts * 2,
             tmp_path / "one.json")  # fmt: skip
    found = table(tmp_path / "one.json")
    row = found["entropy", "all heads"]
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["difference"] == pytest.approx(row["first"] - row["second"], abs=1e-5)
    assert row["differs"]
    assert all(found["entropy", f"0.{head}"]["differs"] for head in range(4))
    assert found["entropy", "layer 0"]["difference"] == pytest.approx(row["difference"], abs=1e-5)


def test_models_of_other_shapes_are_compared_as_wholes(twins, planted, tmp_path):
    (by_word, _), _ = twins
    result = compared(planted[0], by_word, planted[1], tmp_path / "one.json", "--layers", "0")
    assert {part for _, part in table(tmp_path / "one.json")} == {"all heads"}
    assert "heads that differ" in result.output


def test_one_text_is_compared_without_an_interval_and_says_so(twins, tmp_path):
    (by_word, by_letter), texts = twins
    result = compared(by_word, by_letter, texts[:1], tmp_path / "one.json")
    row = table(tmp_path / "one.json")["entropy", "all heads"]
    assert (row["low"], row["p"], row["n_texts"]) == (None, None, 1)
    assert "one text gives no interval" in result.output


def test_a_revision_follows_an_at_sign_unless_a_folder_has_one(twins, tmp_path):
    (by_word, _), texts = twins
    known = models.load(by_word)
    folder = save(tmp_path / "at@home", known.net, known.tokenizer)
    compared(folder, by_word, texts, tmp_path / "one.npz")
    assert runs.Result.load(tmp_path / "one.npz").sources[0].model_hash == models.fingerprint(known)
    result = call("compare", "nobody/nothing@v2", by_word, "--text", texts[0])
    assert result.exit_code == 1
    assert "nobody/nothing could not be loaded" in result.output


def test_the_page_of_a_comparison_shows_its_intervals(twins, tmp_path):
    (by_word, by_letter), texts = twins
    compared(by_word, by_letter, texts, tmp_path / "one.html")
    assert "Differences in bits" in (tmp_path / "one.html").read_text()


def test_a_text_of_one_word_cannot_be_compared(twins):
    (by_word, by_letter), _ = twins
    result = call("compare", by_word, by_letter, "--text", "aaaa")
    assert result.exit_code == 2


def test_texts_that_read_differently_cannot_be_aligned():
    ids, spans, special = torch.arange(2), torch.tensor([[0, 1], [2, 3]]), torch.tensor([False, False])
    one, other = (Tokens(text, ids, ("a", "b"), spans, special) for text in ("a b", "a-b"))
    with pytest.raises(click.UsageError, match="without character offsets reads 'a-b' for 'a b'"):
        _shared(0, one, other)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_attention_that_depends_on_words_alone_is_the_same_however_they_are_cut(seed, causal, sink):
    draw = np.random.default_rng(seed)
    pieces = draw.integers(1, 5, size=12)
    word = torch.tensor(np.repeat(np.arange(12), pieces))
    if sink:
        word = torch.cat([torch.tensor([-1]), word])
    scores = torch.tensor(draw.normal(size=(3, 13, 13)), dtype=torch.float64)[:, word][:, :, word]
    n = len(word)
    support = measure.causal(n) if causal else measure.full(n)
    pattern = scores.masked_fill(~support, -torch.inf).softmax(-1)
    found, allowed, between = by_words(pattern, support, word, kept=torch.arange(12))
    of_words = scores[:, firsts(word)][:, :, firsts(word)]
    meant = measure.causal(12) if causal else measure.full(12)
    assert torch.equal(allowed, meant)
    torch.testing.assert_close(found, of_words.masked_fill(~meant, -torch.inf).softmax(-1))
    assert (between <= 1 + 1e-9).all()
    assert (between.min() < 1 - 1e-9) == sink


def firsts(word):
    """The first token of each word."""
    return torch.tensor([word.tolist().index(i) for i in range(12)])


def test_a_token_belongs_to_the_word_it_begins_in_and_a_cut_word_to_nobody():
    text = "The cat, mat"
    spans = torch.tensor([[0, 0], [0, 3], [3, 7], [7, 8], [8, 9], [9, 10]])
    special = torch.tensor([True] + [False] * 5)
    tokens = Tokens(text, torch.zeros(6, dtype=torch.long), ("[CLS]", "The", " cat", ",", " ", "m"), spans, special)
    assert place_of(tokens).tolist() == [-1, 0, 1, 1, -1, -1]
    whole = Tokens("The cat", tokens.ids[:3], tokens.strings[:3], spans[:3], special[:3])
    assert place_of(whole).tolist() == [-1, 0, 1]
