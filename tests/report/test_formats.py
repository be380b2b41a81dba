"""Formats of a report: few notes on the terminal, all of them with --explain and in every file."""

import io
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from diffgap.cli.main import main
from diffgap.cli.report import STYLES
from diffgap.report.formats import BRIEF, FORMATS, TEXTS, brief_notes, print_tables
from diffgap.report.render import all_notes
from diffgap.report.tables.table import NOTHING, Row, Table, Value

EXPLAIN = "diffgap report x --explain"
TABLE = Table("t", "T", ("a",), (Row("ours", (Value("1", 1.0),)),), ("one", "two", "three"))


def test_the_command_offers_every_format():
    assert sorted(STYLES) == sorted(FORMATS)


def test_few_notes_stand_as_they_are():
    assert brief_notes(TABLE, EXPLAIN) == ["one", "two", "three"]


def test_of_many_notes_two_stand_and_the_last_line_says_where_the_rest_is():
    table = replace(TABLE, notes=(*TABLE.notes, "four"))
    assert brief_notes(table, EXPLAIN) == ["one", "two", f"{EXPLAIN} shows 2 more notes."]


def test_notes_in_short_replace_them_and_what_does_not_count_comes_next():
    rows = (*TABLE.rows, Row("other", (NOTHING,), missing_reason="1 failed"))
    table = replace(TABLE, rows=rows, brief=("marks",))
    assert brief_notes(table, EXPLAIN) == [
        "marks", "other: 1 failed.", f"{EXPLAIN} shows 3 more notes.",
    ]  # fmt: skip


def test_a_note_that_is_already_short_is_not_counted_twice():
    table = replace(TABLE, notes=("one",), brief=("one",))
    assert brief_notes(table, EXPLAIN) == ["one"]


def printed(tables, explain_with):
    text = io.StringIO()
    print_tables(tables, Console(file=text, width=500), explain_with)
    return text.getvalue()


def test_no_table_of_the_demo_has_more_notes_than_fit(report):
    for table in report.tables:
        notes = brief_notes(table, EXPLAIN)
        assert 0 < len(notes) <= BRIEF
        assert all(note in printed([table], EXPLAIN) for note in notes)
        assert all(note in printed([table], None) for note in all_notes(table))


def test_files_have_all_notes(report):
    for name in ("terminal", "md"):
        text = TEXTS[name].render(report)
        assert "--explain" not in text
        for table in report.tables:
            assert all(note in " ".join(text.split()) for note in all_notes(table))


@pytest.mark.parametrize("words", [("ablation",), ("ablation", "--explain")], ids=" ".join)
def test_the_terminal_names_the_command_that_explains(demo, words):
    result = CliRunner().invoke(main, ["report", *words, "--output", str(demo)])
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    command = f"diffgap report ablation --explain --output {demo} shows"
    assert (command in output) == ("--explain" not in words)
    assert ("Holm-corrected over the table" in output) == ("--explain" in words)
