"""What a survey keeps on disk: nothing stale comes back, nothing finished is lost, two processes do no harm."""

import functools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import families
import pytest
import torch
from transformers import BertTokenizerFast

from atlaskit import measure, models
from atlaskit.models import cache as caching

TEXTS = [list(range(4, n)) for n in (20, 31, 12)]
SCORES = {"entropy": measure.entropy, "first": measure.mass_on(measure.first_token)}


@pytest.fixture(scope="module")
def model():
    return models.wrap(families.tiny("gpt2"), name="tiny")


@pytest.fixture
def passes(model):
    seen = []
    handle = model.net.base_model.register_forward_pre_hook(lambda *_: seen.append(1))
    yield seen
    handle.remove()


def survey(model, path, scores=SCORES, texts=TEXTS):
    return models.survey(model, texts, scores, cache=path, progress=False)


def test_a_second_survey_runs_nothing_and_gives_the_same_bytes(model, tmp_path, passes):
    first = survey(model, tmp_path / "a" / "cache.db")
    assert len(passes) == 3
    again = survey(model, tmp_path / "a" / "cache.db")
    assert len(passes) == 3
    plain = models.survey(model, TEXTS, SCORES, progress=False)
    for name in SCORES:
        assert torch.equal(first[name], again[name])
        assert torch.equal(first[name], plain[name])


def test_only_what_is_new_is_run(model, tmp_path, passes):
    survey(model, tmp_path / "c", texts=TEXTS[:2])
    found = survey(model, tmp_path / "c", texts=[TEXTS[2], *TEXTS[:2]])
    assert len(passes) == 3
    assert found.n_tokens.tolist() == [8, 16, 27]
    survey(model, tmp_path / "c", {"max": measure.max_weight}, TEXTS)
    assert len(passes) == 6


def test_other_weights_are_another_model(tmp_path, passes, model):
    survey(model, tmp_path / "c")
    other = families.tiny("gpt2")
    with torch.no_grad():
        next(other.parameters())[4:] += torch.linspace(0, 1, 32)
    told = survey(models.wrap(other), tmp_path / "c")
    assert not torch.equal(told["entropy"], survey(model, tmp_path / "c")["entropy"])


def test_the_same_weights_under_other_settings_are_another_model(model, tmp_path):
    """Eight heads of four made from four heads of eight: not one weight differs."""
    net = families.tiny("gpt2")
    other = type(net)(net.config.__class__(**net.config.to_dict() | {"n_head": 8})).eval()
    other.load_state_dict(net.state_dict())
    survey(model, tmp_path / "c")
    assert survey(models.wrap(other), tmp_path / "c")["entropy"].shape == (3, 2, 8)


def capitals(pattern, tokens):
    return torch.full(pattern.shape[:2], float(sum(part.isupper() for part in tokens.strings)))


def test_a_text_with_the_same_ids_is_another_text(tmp_path):
    """A tokenizer that drops case gives both the same; a score sees the text, too."""
    words = BertTokenizerFast(vocab={word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat"])})
    model = models.wrap(families.tiny("bert"), words)
    for text, n in (("cat cat", 0.0), ("CAT CAT", 2.0)):
        found = survey(model, tmp_path / "c", {"capitals": capitals}, [text])["capitals"]
        assert torch.equal(found, torch.full_like(found, n + 2))  # [CLS] and [SEP] are capitals, too


def bound(pattern, *, power):
    return pattern.pow(power).sum(-1)


def test_a_score_bound_to_other_values_is_another_score(model, tmp_path):
    for power in (2, 3):
        score = {"power": functools.partial(bound, power=power)}
        assert torch.equal(
            survey(model, tmp_path / "c", score)["power"], models.survey(model, TEXTS, score, progress=False)["power"]
        )


def test_a_score_whose_source_changed_is_another_score(model, tmp_path, monkeypatch):
    """As in a notebook: the same name, another body; and a helper that it calls."""

    def write(body):
        file = tmp_path / f"score_{abs(hash(body))}.py"
        file.write_text(f"def helper(x):\n    return {body}\n\n\ndef score(pattern):\n    return helper(pattern)\n")
        space = {"__name__": "score_module"}
        exec(compile(file.read_text(), str(file), "exec"), space)
        return space["score"]

    monkeypatch.setitem(sys.modules, "score_module", type(sys)("score_module"))
    largest, smallest = (
        survey(model, tmp_path / "c", {"s": write(body)})["s"] for body in ("x.amax(-1)", "x.amin(-1)")
    )
    assert bool((smallest < largest).all())


def test_a_score_that_cannot_be_told_from_another_is_refused(model, tmp_path):
    def score(pattern, thing=object()):  # noqa: B008
        return pattern.amax(-1)

    with pytest.raises(TypeError, match=r"holds a object, of which a cache cannot tell .* survey without cache"):
        survey(model, tmp_path / "c", {"s": score})


def test_what_was_unused_for_longest_goes_first_and_the_file_stays_below_its_limit(model, tmp_path, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(caching.time, "time", lambda: next(clock))
    monkeypatch.setattr(caching, "LIMIT", 200_000)
    cache = caching.Cache(tmp_path / "c", model, {"entropy": measure.entropy}, which="decoder")
    documents = [(model.tokens([4, i]), model.tokens([4, i])) for i in range(4, 44)]
    for i, document in enumerate(documents):
        cache.keep([(document, {"entropy": torch.full((40, 60), float(i))})])  # 9,600 bytes
        cache.found(documents[:1])  # used all the time
    kept = cache.found(documents)
    cache.close()
    assert 0 in kept
    assert len(kept) > 10
    assert set(kept) == {0, *range(len(documents) - len(kept) + 1, len(documents))}
    assert all((found["entropy"] == i).all() for i, found in kept.items())
    assert (tmp_path / "c").stat().st_size < 200_000 + 2 * 9_600


def test_a_damaged_file_is_named(model, tmp_path):
    (tmp_path / "c").write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(ValueError, match=r"c is no cache .* delete it"):
        survey(model, tmp_path / "c")
    with pytest.raises(OSError, match=r"the cache .* cannot be opened"):
        survey(model, tmp_path)


def test_numbers_made_from_moments_are_not_taken_for_those_made_from_patterns(model, tmp_path, passes):
    """The two ways agree to rounding only, so what is resumed would depend on what had been asked before."""
    bits = {"bits": measure.moments.entropy}
    survey(model, tmp_path / "c", bits | {"max": measure.max_weight})
    found = survey(model, tmp_path / "c", bits)
    assert len(passes) == 6
    assert torch.equal(found["bits"], models.survey(model, TEXTS, bits, progress=False)["bits"])


def test_a_batched_survey_that_was_interrupted_ends_in_the_same_bytes(model, tmp_path, passes):
    """What is left over would be padded to another length, were it put into batches anew."""
    texts = [list(range(4, 4 + n)) for n in (9, 30, 11, 12, 29, 10, 31, 8)]
    batched = {"batch_tokens": 50, "progress": False}
    plain = models.survey(model, texts, SCORES, **batched)
    n_passes = len(passes)
    calls = 0

    def interrupting(pattern, support):
        nonlocal calls
        calls += 1
        if calls > 9:  # in the third pass: two layers of four texts, then of one
            raise KeyboardInterrupt
        return measure.entropy(pattern, support)

    first = models.survey(model, texts, {"entropy": interrupting}, **batched)
    assert 0 < len(first.n_tokens) < len(texts)
    done = [texts[i] for i in first.places]
    passes.clear()
    models.survey(model, done, SCORES, cache=tmp_path / "c", **batched)
    resumed = models.survey(model, texts, SCORES, cache=tmp_path / "c", **batched)
    assert len(passes) == n_passes
    for name in SCORES:
        assert torch.equal(resumed[name], plain[name])


def test_a_text_that_comes_again_is_read_once_and_is_equal_to_itself(model, tmp_path, passes):
    """In two batches it would be padded to two lengths, and the cache would keep the later for both."""
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(4, 96, (n,), generator=generator).tolist() for n in (19, 20, 20, 33)]
    texts[2] = texts[1]
    batched = {"batch_tokens": 40, "progress": False}
    plain = models.survey(model, texts, SCORES, **batched)
    assert len(passes) == 2
    models.survey(model, texts, SCORES, cache=tmp_path / "c", **batched)
    again = models.survey(model, texts, SCORES, cache=tmp_path / "c", **batched)
    assert len(passes) == 4
    for name in SCORES:
        assert torch.equal(plain[name][1], plain[name][2])
        assert torch.equal(plain[name], again[name])


PROGRAM = """
import sys, time, torch, families
from atlaskit import measure, models
model = models.wrap(families.tiny("gpt2"), name="tiny")
def slow(pattern, support):
    time.sleep(float(sys.argv[2]))
    return measure.entropy(pattern, support)
texts = [list(range(4, 10 + n)) for n in range(30)]
found = models.survey(model, texts, {"slow": slow}, cache=sys.argv[1], progress=False)
sys.stdout.buffer.write(found["slow"].numpy().tobytes())
"""


def run(path, seconds):
    program = path.parent / "program.py"
    program.write_text(PROGRAM)
    tests = Path(__file__).parents[1]
    places = os.pathsep.join(map(str, (tests / "shared", tests.parent)))
    return subprocess.Popen(
        [sys.executable, program, path, seconds], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": places}
    )


def entries(path):
    try:
        with sqlite3.connect(path, timeout=10) as file:
            return file.execute("SELECT COUNT(*) FROM numbers").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_a_survey_killed_at_any_moment_goes_on_and_ends_in_the_same_bytes(model, tmp_path):
    killed = run(tmp_path / "c", "0.05")
    while entries(tmp_path / "c") < 3:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert 3 <= entries(tmp_path / "c") < 30
    resumed, _ = run(tmp_path / "c", "0").communicate()
    texts = [list(range(4, 10 + n)) for n in range(30)]
    undisturbed = models.survey(model, texts, {"slow": measure.entropy}, progress=False)["slow"]
    assert resumed == undisturbed.numpy().tobytes()


def test_two_processes_may_share_a_file(tmp_path):
    """Started at once, both make the file; then they write the same texts in turn."""
    both = [run(tmp_path / "c", "0.01") for _ in range(2)]
    first, second = (one.communicate()[0] for one in both)
    assert [one.returncode for one in both] == [0, 0]
    assert first == second != b""
    assert entries(tmp_path / "c") == 30
