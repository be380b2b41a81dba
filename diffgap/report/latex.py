"""Tables as a LaTeX document that any TeX Live compiles: pure ASCII, every text escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from diffgap.evaluation.metrics import is_metric
from diffgap.report.tables.table import NOTHING, Row, Table, Value

PAGE = 45
"""Lines of rows and notes that fit on a page under a caption."""

LINE = 120
"""Characters of a note that fit on a line."""

PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{amsmath,amssymb}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
\sloppy
\newsavebox{\fitted}
% A table of its own size, or shrunk to the width of the text.
\newcommand{\fit}[1]{\sbox{\fitted}{#1}%
  \ifdim\wd\fitted>\textwidth\resizebox{\textwidth}{!}{\usebox{\fitted}}%
  \else\usebox{\fitted}\fi}
"""


def to_latex(tables: Sequence[Table], missing: Sequence[str]) -> str:
    """A whole document: the tables, and a line for each that is missing.

    Published rows stand below a rule, with their sources as footnotes of the table.
    """
    lines = [PREAMBLE, r"\begin{document}", r"\section*{DiffGAP report}", ""]
    for table in tables:
        lines += [*_table(table), ""]
    if missing:
        lines += [r"\subsection*{Missing}", r"\begin{itemize}"]
        lines += map(r"\item {}".format, map(escape, missing))
        lines += [r"\end{itemize}", ""]
    return "\n".join([*lines, r"\end{document}", ""])


def _table(table: Table) -> list[str]:
    """A table environment, or several where it has more rows than a page."""
    notes = _notes(table)
    # A float never breaks across pages: a longer one would run off the paper.
    pages = [table.rows[start : start + PAGE] for start in range(0, len(table.rows), PAGE)] or [()]
    lines: list[str] = []
    for number, rows in enumerate(pages, 1):
        part = f" (part {number} of {len(pages)})" if len(pages) > 1 else ""
        lines += [r"\begin{table}[!htbp]", r"\centering"]
        lines.append(rf"\caption{{{escape(table.title + part)}}}")
        lines += _tabular(table, rows) if rows else []
        lengths = [1 + len(note) // LINE for note in notes]
        if number == len(pages) and len(rows) + sum(lengths) <= PAGE:
            lines += _small(notes)
            notes = []
        lines.append(r"\end{table}")
    if notes:
        lines += [r"\clearpage", *_small(notes)]  # else they would precede the floats
    return lines


def _tabular(table: Table, rows: Sequence[Row]) -> list[str]:
    """The rows, published ones below a rule, and the headings."""
    has_seeds = any(map(attrgetter("seeds"), table.rows))
    headings = ["seeds", *table.headings] if has_seeds else list(table.headings)
    lines = [r"\fit{\begin{tabular}{l" + "r" * len(headings) + "}", r"\toprule"]
    lines += [*_headings(headings), r"\midrule"]
    for index, row in enumerate(rows):
        if index and row.published and not rows[index - 1].published:
            lines.append(r"\midrule")
        name = escape(row.name) + (_raised(str(row.footnote)) if row.published else "")
        seeds = [escape(row.seeds)] if has_seeds else []
        lines.append(_line([name, *seeds, *map(_cell, row.values)]))
    return [*lines, r"\bottomrule", r"\end{tabular}}"]


def _headings(headings: Sequence[str]) -> list[str]:
    """One line; two where some headings stand under a common one, the others broken at a word."""
    if not any(map(_group, headings)):
        return [_line(["", *map(escape, headings)])]
    above, below, rules = [""], [""], []
    for group, members in groupby(headings, key=_group):
        names = list(members)
        if group:
            column = len(below) + 1  # LaTeX counts from 1
            above.append(rf"\multicolumn{{{len(names)}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{column}-{column + len(names) - 1}}}")
        for name in names:
            first, _, last = name.rpartition(" ")
            above += [] if group else [escape(first)]
            below.append(escape(last))
    return [_line(above), "".join(rules), _line(below)]


def _group(heading: str) -> str:
    """What a metric stands under: ``text->audio R@5`` under ``text->audio``; empty for others."""
    return heading.rpartition(" ")[0] if is_metric(heading) else ""


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(value: Value) -> str:
    text = "--" if value.text == NOTHING.text else escape(value.text)
    if value.best:
        text = rf"\textbf{{{text}}}"
    elif value.near:
        text = rf"\underline{{{text}}}"
    return text + (_raised("*") if value.star else "")


def _raised(mark: str) -> str:
    return f"$^{{{mark}}}$"


def _notes(table: Table) -> list[str]:
    """Notes, rows of which trials are missing, and sources, escaped, each behind its mark."""
    lines = []
    for note in table.notes:
        text = note.removeprefix("* ")
        lines.append(escape(text) if text == note else f"{_raised('*')} {escape(text)}")
    lines += map(escape, table.incomplete)
    for number, source in enumerate(table.sources, 1):
        lines.append(f"{_raised(str(number))} {escape(source)}")
    return lines


def _small(notes: Sequence[str]) -> list[str]:
    """Notes in small type, a paragraph each."""
    paragraphs = map(r"{}\par".format, notes)
    start = [r"\par\medskip", r"{\footnotesize\raggedright"]
    return [*start, *paragraphs, "}"] if notes else []


# Characters. These tables are our own, for pylatexenc's also write commands (\cyrzh, \clockoint)
# that a plain document lacks, so that a clip's name could keep the report from compiling.

SPECIAL = {
    **{"−": "$-$", "–": "--", "—": "---", "°": r"$^{\circ}$", "‘": "{`}", "’": "{'}"},
    "\0": "{}",  # see JOINED
    **{letter: f"\\{letter}" for letter in "{}_%&#$"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # else the \\ of the line before takes them
}

NAME = r"(\S) (\w+)"
"""A character and the name of its command."""

SIGNS: dict[str, str] = dict(
    re.findall(
        NAME,
        "± pm × times · cdot ÷ div → rightarrow ← leftarrow ↔ leftrightarrow ↑ uparrow ↓ downarrow "
        "≤ leq ≥ geq ≠ neq ≈ approx ∞ infty √ surd µ mu α alpha β beta γ gamma δ delta ε epsilon "
        "ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho ς varsigma σ sigma "
        "τ tau υ upsilon φ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi "
        "Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega",
    )
)
LETTERS: dict[str, str] = dict(
    re.findall(
        NAME,
        "ß ss æ ae Æ AE œ oe Œ OE ø o Ø O ł l Ł L ı i § S … ldots \\ textbackslash "
        "~ textasciitilde ^ textasciicircum ` textasciigrave < textless > textgreater | textbar "
        '" textquotedbl “ textquotedblleft ” textquotedblright',
    )
)
ACCENTS = {
    **dict(zip("\u0300\u0301\u0302\u0303\u0304\u0307\u0308", "`'^~=.\"", strict=True)),
    **dict(zip("\u0306\u030a\u030b\u030c\u0327\u0328", "urHvck", strict=True)),
}
JOINED = re.compile(r"(?<=(['`,-]))(?=\1)")
"""Between two hyphens, commas or quotes, of which TeX would make one character."""


def escape(text: str) -> str:
    """LaTeX that shows a text: ``->`` as an arrow, ``+-`` as ±, a minus as a minus.

    Letters get their accents; a letter that TeX's own fonts lack is shown by its number, as U+4E2D.
    Ends of lines are spaces.
    """
    plain = " ".join(text.split()).replace("->", "→").replace("+-", "±")
    plain = re.sub(r"(?<![\w.\-])-(?=\d)", "−", plain)  # not the hyphens of 1e-4 and a-1
    return "".join(map(_character, unicodedata.normalize("NFC", JOINED.sub("\0", plain))))


def _character(letter: str) -> str:
    if letter in SPECIAL:
        return SPECIAL[letter]
    if letter in LETTERS:
        return rf"\{LETTERS[letter]}{{}}"
    if letter in SIGNS:
        return rf"$\{SIGNS[letter]}$"
    if " " <= letter <= "~":
        return letter
    return _accented(letter) or _compatible(letter) or rf"\texttt{{U+{ord(letter):04X}}}"


def _accented(letter: str) -> str | None:
    """A letter of the alphabet with one accent."""
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) != 2 or not ("a" <= parts[0].lower() <= "z") or parts[1] not in ACCENTS:
        return None
    base, accent = parts[0], ACCENTS[parts[1]]
    dotless = base in "ij" and accent not in "ck"  # those stand below it
    return rf"\{accent}{{\{base}}}" if dotless else rf"\{accent}{{{base}}}"


def _compatible(letter: str) -> str | None:
    """The ASCII that a letter is another form of: 2 of a raised two, fi of a ligature."""
    parts = unicodedata.normalize("NFKC", letter)
    return "".join(map(_character, parts)) if parts.isascii() and parts.isprintable() else None
