"""LaTeX of tables: every letter escaped, every row whole, and a document that compiles."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgap.report.latex import PAGE, escape, to_latex
from diffgap.report.tables.table import NOTHING, Row, Table, Value

NASTY = "\\ { } $ & # _ % ~ ^ < > | \" ' ` [x] * -- ''"
LETTERS = "× ± λ Δ → ≤ − – “é” Ångström Łódź naïve ﬁ ² 中 🎵 \t\n \x07"


def groups(text, at=0):
    """Checks that braces are balanced; a backslash takes the letter after it along."""
    depth = 0
    for token in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0, text
    assert depth == 0, text


def cells(line):
    """The width of a row of a tabular: its cells, as wide as `multicolumn` says."""
    found = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
    wide = [re.match(r"\s*\\multicolumn\{(\d+)\}", cell) for cell in found]
    return sum(int(match[1]) if match else 1 for match in wide)


def check(document):
    """A strict reader of what `to_latex` may write; returns the rows of each tabular."""
    assert document.isascii()
    code = re.sub(r"(?<!\\)%.*", "", document)
    groups(code)
    opened, tabulars = [], []
    columns = 0
    for line in code.splitlines():
        for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", line):
            if kind == "begin":
                opened.append(name)
            else:
                assert opened.pop() == name, line
        if spec := re.search(r"\\begin\{tabular\}\{(\w+)\}", line):
            columns = len(spec[1])
            tabulars.append([])
        elif opened[-1:] == ["tabular"] and line.endswith(r"\\"):
            assert cells(line) == columns, line
            tabulars[-1].append(line)
        elif opened[-1:] == ["tabular"]:
            assert re.fullmatch(r"\\(top|mid|bottom)rule|(\\cmidrule\(lr\)\{\d+-\d+\})+", line)
    assert not opened
    return tabulars


def table(**changes):
    """A table with each kind of mark, row and note."""
    values = {
        "key": "methods-x",
        "title": "Methods on a_b & c: R@K in %",
        "headings": ("text->audio R@1", "text->audio R@5", "audio->text R@1", "gap after"),
        "rows": (
            Row("DiffGAP_1", (Value("42.0 ± 1.5", 42, best=True, star=True), *[NOTHING] * 3)),
            Row("C3", (Value("41.0 ± 1.5", 41, near=True), *[Value("-0.25")] * 3), seeds="2 of 3"),
            Row("ML-CLAP", (Value("47.3"), *[NOTHING] * 3), footnote=1),
        ),
        "notes": ("* differs from C3: p < 0.05.", "100 % of a_b"),
        "sources": ("arXiv 2406.07012 (quoted)",),
    }
    return Table(**values | changes)


def test_marks_rules_and_footnotes():
    document = to_latex([table()], [])
    check(document)
    assert r"\textbf{42.0 $\pm$ 1.5}$^{*}$" in document
    assert r"\underline{41.0 $\pm$ 1.5}" in document
    assert r"DiffGAP\_1 &  & " in document
    assert "$-$0.25" in document
    assert " & -- & -- " in document
    assert "\\midrule\nML-CLAP$^{1}$" in document
    assert r"$^{1}$ arXiv 2406.07012 (quoted)\par" in document
    assert r"$^{*}$ differs from C3: p \textless{} 0.05.\par" in document
    assert r"\caption{Methods on a\_b \& c: R@K in \%}" in document


def test_headings_of_one_direction_stand_under_it():
    above, below = check(to_latex([table()], []))[0][:2]
    assert r"\multicolumn{2}{c}{text$\rightarrow$audio}" in above
    assert above.endswith(r" & gap \\")
    assert below == r" & seeds & R@1 & R@5 & R@1 & after \\"
    assert r"\cmidrule(lr){3-4}\cmidrule(lr){5-5}" in to_latex([table()], [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\", r"\textbackslash{}"),
        ("{}", r"\{\}"),
        ("a_b%c&d#e$f", r"a\_b\%c\&d\#e\$f"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("<>|", r"\textless{}\textgreater{}\textbar{}"),
        ("--set x=-1", r"-{}-set x=$-$1"),
        ("a->b +- 1e-4", r"a$\rightarrow$b $\pm$ 1e-4"),
        ("3 × λ ± Δ", r"3 $\times$ $\lambda$ $\pm$ $\Delta$"),
        ("é ï Ł e\u0301 ç", "\\'{e} \\\"{\\i} \\L{} \\'{e} \\c{c}"),
        ("中", r"\texttt{U+4E2D}"),
        ("x² ﬁ", "x2 fi"),
        ("[a]*", "{[}a{]}{*}"),
        ("a\nb", "a b"),
    ],
)
def test_letters(text, expected):
    assert escape(text) == expected


@given(st.text())
def test_any_text_is_ascii_with_balanced_braces_and_nothing_that_tex_obeys(text):
    shown = escape(text)
    assert shown.isascii()
    assert shown.isprintable()
    groups(shown)
    bare = re.sub(r"\\[{}_%&#$]", "", shown)  # what is left are commands of ours and letters
    assert not re.search(r"[%&#_~]", re.sub(r"\\~\{", "", bare))


def test_a_long_table_is_several_and_its_notes_follow():
    rows = tuple(Row(f"row {i}", (NOTHING,) * 4) for i in range(2 * PAGE + 1))
    document = to_latex([table(rows=rows, notes=("a note",) * PAGE)], [])
    assert [len(found) - 2 for found in check(document)] == [PAGE, PAGE, 1]
    assert "(part 3 of 3)" in document
    assert document.index("a note") > document.rindex(r"\end{table}")


def test_a_table_without_rows_says_why_and_what_is_missing_is_told():
    document = to_latex([table(rows=())], ["No runs: make them with: diffgap sweep a_b.yaml"])
    assert check(document) == []
    assert r"100 \% of a\_b" in document
    assert r"\item No runs: make them with: diffgap sweep a\_b.yaml" in document


def test_the_whole_report_is_read_by_a_strict_reader(report):
    document = to_latex(report.tables, report.missing)
    found = check(document)
    assert len(found) == sum(1 for t in report.tables if t.rows)
    for rows, shown in zip(found, [t for t in report.tables if t.rows], strict=True):
        heads = 2 if any("R@" in h for h in shown.headings if " " in h) else 1
        assert len(rows) == heads + len(shown.rows)


def compiled(document, place):
    """Compiles a document in an empty directory; returns what was said."""
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if program is None:
        pytest.skip("neither pdflatex nor tectonic is installed")
    (place / "report.tex").write_text(document)
    strict = ["-halt-on-error", "-interaction=nonstopmode"] if "pdflatex" in program else []
    ran = subprocess.run(
        [program, *strict, "report.tex"], cwd=place, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert (place / "report.pdf").stat().st_size > 1000
    return ran.stdout


def test_the_whole_report_compiles(report, tmp_path):
    compiled(to_latex(report.tables, report.missing), tmp_path)


def test_the_worst_names_compile(tmp_path):
    name = f"{NASTY} {LETTERS}"
    rows = tuple(
        Row(text, (Value(text, best=True), Value(text, near=True, star=True)), footnote=foot)
        for text, foot in ((name, None), ("[1] first", None), ("* star", 1))
    )
    wide = table(title=name, headings=(f"{name} R@1", name), rows=rows, notes=(name, ""))
    document = to_latex([wide, table(rows=()), table(rows=rows * 40, headings=("a", "b"))], [name])
    check(document)
    said = compiled(document, tmp_path)
    assert "Missing character" not in said


def test_nothing_at_all_compiles(tmp_path):
    compiled(to_latex([], []), tmp_path)
