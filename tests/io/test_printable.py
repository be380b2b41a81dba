"""Text that leaves the package: characters that do something are shown instead."""

import pytest

from diffgap.io.printable import csv_cell, log_text, markdown, one_line, printable


def test_text_in_any_script_stays_as_it_is():
    text = "Grüße, 猫が鳴く, कुत्ता, שלום, 👨\u200d👩\u200d👧 ±3\tand\nmore"
    assert printable(text) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J", "␛[2J"),
        ("\x00\x07\r\x7f", "␀␇␍␡"),
        ("\x9b31m", "�31m"),  # C1: the same as ESC [
        ("a\u202egpj.exe", "a�gpj.exe"),  # would be shown as aexe.jpg
        ("\u2066x\u2069\u200f", "�x��"),
        ("\udcff.wav", "�.wav"),  # a byte of a name that is not UTF-8
    ],
)
def test_what_acts_is_shown(raw, shown):
    assert printable(raw) == shown
    assert len(shown) == len(raw)
    assert one_line(raw).isprintable()


def test_a_cell_is_one_line():
    assert one_line("a\r\nerror: fake\tb\u2028c\x85d") == "a error: fake b c d"


def test_logs_lose_their_colours_and_nothing_else():
    assert log_text("\x1b[1;31mred\x1b[0m \x1b[2J") == "red ␛[2J"


@pytest.mark.parametrize(
    "text", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", " =1", "＝1", "-1+2", "\r=1"]
)
def test_spreadsheets_compute_nothing(text):
    assert csv_cell(text).startswith(("'", "␍"))


@pytest.mark.parametrize("text", ["-1.5", "+3", "-1e-9", "-inf", "a-b", "", "1=2", "clip 7"])
def test_numbers_and_plain_words_stay(text):
    assert csv_cell(text) == text


def test_markdown_shows_marks_and_starts_nothing():
    raw = "a_b *c* `d` [e](f) <g> | h\\n\n# i _j_ &lt;"
    assert markdown(raw) == r"a_b \*c\* \`d\` \[e\](f) \<g> \| h\\n # i \_j\_ \&lt;"
