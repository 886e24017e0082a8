"""Truth: every answer is worked out again, by another way, from what stands before it. Law: step and seed are all."""

import random

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from atlaskit import training
from atlaskit.training import listops

STREAM = torch.randint(30, (900,), generator=torch.Generator().manual_seed(0))
MAKERS = {
    "copy": lambda seed=0: training.copy(7, length=20, seed=seed),
    "needle": lambda seed=0: training.needle(6, length=20, seed=seed),
    "selective": lambda seed=0: training.selective_copy(4, length=20, seed=seed),
    "recall": lambda seed=0: training.associative_recall(5, length=24, keys=9, seed=seed),
    "listops": lambda seed=0: training.list_ops(length=40, seed=seed),
    "language": lambda seed=0: training.language(STREAM, vocab=30, length=20, seed=seed),
}
EACH = pytest.mark.parametrize("name", MAKERS)


def copied(row, place):
    return row[place - 7]


def beside_its_key(row, place):
    """What followed this token when it stood here before."""
    (before,) = [i for i in range(place) if row[i] == row[place]]
    return row[before + 1]


def told_in_order(row, place):
    marks = [i for i, token in enumerate(row) if token == 9]
    items = [token for token in row if token < 8]
    return items[marks.index(place)]


def worked_out(row, place):
    """A stack machine: it reads words from left to right and never sees a tree."""
    stack = []
    for token in row[:place]:
        word = listops.WORDS[token]
        if word != "]":
            stack.append(int(word) if word.isdigit() else word)
            continue
        numbers = []
        while isinstance(stack[-1], int):
            numbers.append(stack.pop())
        numbers.sort()
        results = {"MAX": numbers[-1], "MIN": numbers[0], "MED": numbers[(len(numbers) - 1) // 2]}
        stack[-1] = results.get(stack[-1], sum(numbers) % 10)
    (answer,) = stack
    return answer


SOLVERS = {
    "copy": copied, "needle": beside_its_key, "selective": told_in_order, "recall": beside_its_key,
    "listops": worked_out, "language": None,
}  # fmt: skip


@pytest.mark.parametrize(("name", "solve"), [(name, solve) for name, solve in SOLVERS.items() if solve])
def test_every_answer_follows_from_what_stands_before_it(name, solve):
    task = MAKERS[name]()
    for batch in [task.batch(0), task.batch(1), *task.held_out(1)]:
        assert batch["input_ids"].shape == batch["labels"].shape
        assert batch["input_ids"].shape[1] == task.length
        assert 0 <= batch["input_ids"].min() <= batch["input_ids"].max() < task.vocab
        asked = (batch["labels"] != -100).nonzero().tolist()
        assert {row for row, _ in asked} == set(range(16)), "every row asks for something"
        for row, place in asked:
            # a decoder's labels are read one further than its logits
            assert batch["labels"][row, place] == solve(batch["input_ids"][row].tolist(), place - 1)


def test_a_needle_lies_as_far_away_as_it_says():
    batch = MAKERS["needle"]().batch(0)
    for row, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        (asked,) = [place - 1 for place, label in enumerate(labels) if label != -100]
        assert row[asked - 6] == labels[asked + 1]
        assert row[asked - 7] == row[asked]


def test_recall_asks_for_every_pair_once():
    batch = MAKERS["recall"]().batch(0)
    for row, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        asked = [row[place - 1] for place, label in enumerate(labels) if label != -100]
        assert sorted(asked) == sorted(row[0:10:2])
        assert len(set(asked)) == 5


@EACH
def test_a_batch_depends_on_seed_and_step_alone(name):
    first, again, other = MAKERS[name](), MAKERS[name](), MAKERS[name](seed=1)
    steps = [first.batch(step)["input_ids"] for step in (0, 1, 2**32)]
    torch.rand(3)  # the global state is nobody's business
    assert all(again.batch(step)["input_ids"].equal(ids) for step, ids in zip((0, 1, 2**32), steps, strict=True))
    assert not steps[0].equal(steps[1])
    assert not steps[0].equal(steps[2]), "torch's generator drops all but 32 bits of a seed"
    assert not steps[0].equal(other.batch(0)["input_ids"])
    held = [batch["input_ids"] for batch in first.held_out(2)]
    assert not held[0].equal(held[1])
    assert held[0].equal(other.held_out(1)[0]["input_ids"]), "all seeds are judged on the same rows"
    assert not any(held[0].equal(ids) for ids in steps)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "language"])
def test_chance_is_what_a_constant_guess_gets_right(name):
    task = MAKERS[name]()
    labels = torch.cat([task.batch(step)["labels"] for step in range(40)])
    labels = labels[labels != -100]
    share = labels.bincount().max() / len(labels)
    # among so few values the commonest lies a little above; ListOps has extremes more often than middles
    slack = 0.15 if name == "listops" else 4 * (task.chance / len(labels)) ** 0.5
    assert task.chance <= share <= task.chance + slack


def test_language_is_held_out_from_a_part_that_training_never_reads():
    task = training.language(torch.arange(1000), vocab=1000, length=20, held_out=0.2)
    assert torch.cat([task.batch(step)["input_ids"] for step in range(50)]).max() < 800
    assert torch.cat([batch["input_ids"] for batch in task.held_out(50)]).min() >= 800


def test_the_chance_of_language_is_the_commonest_token():
    stream = torch.cat([torch.arange(10).repeat(9), torch.tensor([3] * 7 + [1] * 3)])
    assert training.language(stream, vocab=10, length=5).chance == pytest.approx(0.7)


def test_characters_come_back():
    ids, alphabet = training.character_stream(["to be", "or not"])
    assert "".join(alphabet[i] for i in ids.tolist()) == "to be\n\nor not"
    assert list(alphabet) == sorted(set("to be\n\nor not"))


def test_tokens_are_the_tokenizers():
    words = {"to": 0, "be": 1, "or": 2, "not": 3}
    inner = Tokenizer(WordLevel(words, unk_token="to"))
    inner.pre_tokenizer = Whitespace()
    stream = training.token_stream(["to be", "or not to be"], PreTrainedTokenizerFast(tokenizer_object=inner))
    assert stream.tolist() == [0, 1, 2, 3, 0, 1]


def test_an_expression_has_the_value_that_one_works_out_by_hand():
    assert listops.value(("SM", [9, ("MAX", [2, 7]), ("MED", [1, 5, 8, 3]), 4])) == (9 + 7 + 3 + 4) % 10


def test_expressions_are_nested():
    luck = random.Random(0)
    opened = [sum(word in listops.OPERATORS for word in listops.expression(luck, most=38, depth=3, arguments=4)[0])
              for _ in range(200)]  # fmt: skip
    assert max(opened) > 4
    assert all(len(listops.expression(luck, most=9, depth=3, arguments=4)[0]) <= 9 for _ in range(50))


class Parrot(torch.nn.Module):
    """Foretells the token of `lag` places ago."""

    def __init__(self, lag, vocab):
        super().__init__()
        self.lag, self.vocab, self.weight = lag, vocab, torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids):
        said = torch.nn.functional.one_hot(input_ids.roll(self.lag, 1), self.vocab).float()
        return type("Output", (), {"logits": said})


def test_accuracy_is_the_share_of_right_answers_in_each_row():
    task = MAKERS["copy"]()
    batches = task.held_out(3)
    assert training.accuracy(Parrot(7, task.vocab), batches).tolist() == [1.0] * 48
    guess = training.accuracy(Parrot(6, task.vocab), batches)
    answers = 48 * 12
    assert abs(guess.mean() - 1 / 8) < 5 * (1 / 8 * 7 / 8 / answers) ** 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: training.copy(20, length=20), "copying from 20 tokens back needs rows longer than 20; these have 20"),
        (lambda: training.needle(18, length=20), "a needle 18 back needs rows of 21, not of 20"),
        (lambda: training.selective_copy(10, length=20), "10 items and their marks need rows of 21; these have 20"),
        (lambda: training.associative_recall(9, length=40, keys=8), "9 pairs need as many different keys; there are 8"),
        (lambda: training.associative_recall(7, length=20), "7 pairs and their questions need rows of 22"),
        (lambda: training.list_ops(length=5), "the shortest expression"),
        (lambda: training.language(STREAM[:30], vocab=30, length=20), "30 tokens do not divide into rows of 20"),
    ],
)
def test_rows_that_are_too_short_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_small_decoder_follows_from_its_seed_and_leaves_the_global_state_alone():
    task = MAKERS["copy"]()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    model, twin, other = (training.small_decoder(task, seed=seed) for seed in (0, 0, 1))
    assert torch.rand(2).equal(expected)
    assert all(ours.equal(theirs) for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True))
    assert not model.transformer.wte.weight.equal(other.transformer.wte.weight)
    spread = float(model.transformer.h[0].mlp.c_fc.weight.detach().std())
    assert spread == pytest.approx(32**-0.5, rel=0.05)
