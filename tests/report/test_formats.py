"""Formats of a report: few notes on the terminal, all of them with --explain and in every file."""

import io
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from diffgap.cli.main import main
from diffgap.cli.report import STYLES
from diffgap.io.printable import UNPRINTABLE, markdown
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
            escape = markdown if name == "md" else str
            assert all(escape(note) in " ".join(text.split()) for note in all_notes(table))


@pytest.mark.parametrize("words", [("ablation",), ("ablation", "--explain")], ids=" ".join)
def test_the_terminal_names_the_command_that_explains(demo, words):
    result = CliRunner().invoke(main, ["report", *words, "--output", str(demo)])
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    command = f"diffgap report ablation --explain --output {demo} shows"
    assert (command in output) == ("--explain" not in words)
    assert ("Holm-corrected over the table" in output) == ("--explain" in words)


HOSTILE = "=x\x1b[2J | **b** <i> [red] \u202egpj\n# title"


@pytest.fixture
def hostile(report):
    """The demo's report with a table of hostile words, and a figure that is not finite."""
    value = Value(HOSTILE, float("nan"))
    row = Row(HOSTILE, (value,), (report.sweeps[0].trials[0].signature,), missing_reason=HOSTILE)
    published = Row(HOSTILE, (value,), footnote=1)
    table = Table("t", HOSTILE, (HOSTILE,), (row, published), (HOSTILE,), (HOSTILE,))
    sweep = report.sweeps[0]
    trials = (replace(sweep.trials[0], label=HOSTILE, files=None, logged={"a": float("nan")}),)
    sweep = replace(sweep, name=HOSTILE, trials=trials)
    return replace(report, sweeps=(sweep,), tables=(table,))


@pytest.mark.parametrize("name", TEXTS)
def test_no_format_has_control_characters(hostile, name):
    text = TEXTS[name].render(hostile)
    assert not UNPRINTABLE.findall(text)
    assert "x" in text


def test_markdown_keeps_a_row_on_its_line_and_starts_no_markup(hostile):
    lines = TEXTS["md"].render(hostile).splitlines()
    assert [line.replace(r"\|", "").count("|") for line in lines[2:6]] == [3] * 4
    assert not [line for line in lines if "<i>" in line.replace(r"\<i>", "") or line[:1] == "#"]
    assert r"\[red\]" in lines[4]


def test_the_terminals_tables_keep_brackets_and_lines(hostile):
    text = TEXTS["terminal"].render(hostile)
    assert text.count("[red]") >= 5
    assert not [line for line in text.splitlines() if line.startswith("# title")]


def test_the_data_of_the_page_are_valid_json(hostile):
    page = TEXTS["html"].render(hostile)
    data = page.partition('id="data">')[2].partition("</script>")[0]

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(data, parse_constant=refuse)["trials"]
    assert 'data-number="nan"' not in page
