"""Reasons: what an application says becomes one of a few words, what we say stays as it is."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.decide import Reason
from budgetware._core.reasons import (
    LONGEST_REASON,
    MOST_REASONS,
    OURS,
    Words,
    reason_label,
)
from budgetware.answers.rejection import Rejection
from budgetware.names import OTHER


@pytest.mark.parametrize("word", ["cheap", "v1.2_b-c", "Slow", "x" * LONGEST_REASON])
def test_a_word_is_its_own_label(word: str) -> None:
    """Letters, digits and three marks make a word; capital letters make no other one."""
    assert Words().label(word) == word.lower()


@pytest.mark.parametrize(
    "reason",
    ["", "two words", "x" * (LONGEST_REASON + 1), "a\r\nSet-Cookie: b", "a\n", "é", "½", "\ud800"],
)
def test_what_is_no_word_is_other(reason: str) -> None:
    """Texts with blanks, line breaks and letters that look alike are counted together."""
    assert Words().label(reason) == OTHER


@pytest.mark.parametrize("reason", [None, 3, b"cheap", ["cheap"], object()])
def test_what_is_no_text_is_other(reason: object) -> None:
    """Nothing that is given makes it fail."""
    assert Words().label(reason) == OTHER


def test_ours_take_no_place() -> None:
    """Every reason of budgetware's own is told apart, though the application has used up its."""
    words = Words(most=0)
    ours = {*Reason, *Rejection}

    assert {words.label(reason) for reason in ours} == {str(reason) for reason in ours} == OURS
    assert type(words.label(Reason.UNLIKELY)) is str


def test_words_are_bounded_in_number() -> None:
    """The first ones stay; an identifier in a reason does not make a series each."""
    words = Words()
    labels = [words.label(f"user-{number}") for number in range(10_000)]

    assert labels[:MOST_REASONS] == [f"user-{number}" for number in range(MOST_REASONS)]
    assert set(labels[MOST_REASONS:]) == {OTHER}
    assert words.label("USER-0") == "user-0"


def test_threads_take_no_more_places_than_there_are() -> None:
    """However many bring new words at once, the bound holds exactly."""
    words = Words()
    start = threading.Barrier(8)
    found: list[str] = []

    def bring(number: int) -> None:
        start.wait()
        found.extend(words.label(f"w{number}-{nth}") for nth in range(200))

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found) - {OTHER}) == MOST_REASONS


@given(st.text(max_size=80))
def test_the_label_of_a_label_is_itself(reason: str) -> None:
    """It may be asked for on the way as often as one likes."""
    words = Words()
    label = words.label(reason)

    assert words.label(label) == label
    assert label == OTHER or (label.isascii() and label.isprintable() and " " not in label)


def test_a_process_has_one_set_of_words() -> None:
    """The public function labels like any set of words."""
    assert reason_label(Reason.COLD) == "cold"
    assert reason_label("no word") == OTHER
