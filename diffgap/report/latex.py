"""Tables as a LaTeX document that any TeX Live compiles: ASCII alone, every text escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby

from diffgap.report.tables.table import NOTHING, Row, Table, Value

PAGE = 45
"""Lines of rows and notes that fit a page under a caption."""

LINE = 120
"""Letters of a note that fit a line."""

GROUPED = re.compile(r"(?P<group>.+) R@\d+")
"""Headings that stand under a common one: ``text->audio R@5`` under ``text->audio``."""

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

    Bold, underlining and stars are as `Value` has them; published rows stand below a rule, with
    their sources as footnotes of the table. Every text is escaped; all of it is ASCII.
    """
    parts = [PREAMBLE, r"\begin{document}", r"\section*{DiffGAP report}", ""]
    for table in tables:
        parts += [*_table(table), ""]
    if missing:
        parts += [r"\subsection*{Missing}", r"\begin{itemize}"]
        parts += [rf"\item {escape(line)}" for line in missing]
        parts += [r"\end{itemize}", ""]
    return "\n".join([*parts, r"\end{document}", ""])


def _table(table: Table) -> list[str]:
    """A table environment, or several where it has more rows than a page."""
    notes = _notes(table)
    pieces = [table.rows[at : at + PAGE] for at in range(0, len(table.rows), PAGE)] or [()]
    lines: list[str] = []
    for number, rows in enumerate(pieces, 1):
        part = f" (part {number} of {len(pieces)})" if len(pieces) > 1 else ""
        lines += [r"\begin{table}[!htbp]", r"\centering"]
        lines.append(rf"\caption{{{escape(table.title + part)}}}")
        lines += _tabular(table, rows) if rows else []
        if number == len(pieces) and _fits(rows, notes):
            lines += _small(notes)
            notes = []
        lines.append(r"\end{table}")
    return [*lines, *([r"\clearpage", *_small(notes)] if notes else [])]


def _fits(rows: Sequence[Row], notes: Sequence[str]) -> bool:
    return len(rows) + sum(1 + len(note) // LINE for note in notes) <= PAGE


def _tabular(table: Table, rows: Sequence[Row]) -> list[str]:
    """The rows, published ones below a rule, and the headings."""
    seeds = any(row.seeds for row in table.rows)
    headings = [*(["seeds"] if seeds else []), *table.headings]
    lines = [r"\fit{\begin{tabular}{l" + "r" * len(headings) + "}", r"\toprule"]
    lines += [*_headings(headings), r"\midrule"]
    for place, row in enumerate(rows):
        if place and row.published and not rows[place - 1].published:
            lines.append(r"\midrule")
        own = [escape(row.seeds)] if seeds else []
        lines.append(_line([_named(row), *own, *map(_cell, row.values)]))
    return [*lines, r"\bottomrule", r"\end{tabular}}"]


def _headings(headings: Sequence[str]) -> list[str]:
    """One line; two where several headings have the first half in common, words of others too."""
    if not any(map(_group, headings)):
        return [_line(["", *map(escape, headings)])]
    above, below, rules = [""], [""], []
    for group, members in groupby(headings, key=_group):
        names = list(members)
        if group:
            place = len(below) + 1
            above.append(rf"\multicolumn{{{len(names)}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + len(names) - 1}}}")
        for name in names:
            first, _, last = name.rpartition(" ")
            above += [] if group else [escape(first)]
            below.append(escape(last))
    return [_line(above), "".join(rules), _line(below)]


def _group(heading: str) -> str | None:
    match = GROUPED.fullmatch(heading)
    return match["group"] if match else None


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _named(row: Row) -> str:
    return escape(row.name) + (_raised(str(row.footnote)) if row.published else "")


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
    """Notes, what is lacking and sources, escaped; a note on a mark begins with the mark."""
    notes = [
        f"{_raised('*')} {escape(note[2:])}" if note.startswith("* ") else escape(note)
        for note in table.notes
    ]
    sources = [f"{_raised(str(n))} {escape(text)}" for n, text in enumerate(table.sources, 1)]
    return [*notes, *map(escape, table.incomplete), *sources]


def _small(notes: Sequence[str]) -> list[str]:
    """Notes in small type, a paragraph each."""
    if not notes:
        return []
    return [r"\par\medskip", r"{\footnotesize\raggedright", *(f"{n}\\par" for n in notes), "}"]


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "°": r"$^{\circ}$",
    "‘": "{`}",
    "’": "{'}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "\0": "{}",
    **{letter: f"\\{letter}" for letter in "{}_%&#$"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # else a line's end before them reads them
}

SIGNS: dict[str, str] = dict(
    re.findall(
        r"(\S) (\w+)",
        "± pm × times · cdot ÷ div → rightarrow ← leftarrow ↔ leftrightarrow ↑ uparrow ↓ downarrow "
        "≤ leq ≥ geq ≠ neq ≈ approx ∞ infty √ surd µ mu α alpha β beta γ gamma δ delta ε epsilon "
        "ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho ς varsigma σ sigma "
        "τ tau υ upsilon φ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi "
        "Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega",
    )
)
LETTERS: dict[str, str] = dict(
    re.findall(r"(\S) (\w+)", "ß ss æ ae Æ AE œ oe Œ OE ø o Ø O ł l Ł L ı i § S")
)
ACCENTS = {
    **dict(zip("\u0300\u0301\u0302\u0303\u0304\u0307\u0308", "`'^~=.\"", strict=True)),
    **dict(zip("\u0306\u030a\u030b\u030c\u0327\u0328", "urHvck", strict=True)),
}
BELOW = ("c", "k")

JOINED = re.compile(r"(?<=(['`,-]))(?=\1)")
"""Between letters that TeX would make another of: two hyphens, commas or quotes."""


def escape(text: str) -> str:
    """LaTeX that shows a text: ``->`` as an arrow, ``+-`` as ±, a minus as a minus.

    Accents are put on their letters; a letter that TeX's own fonts lack is shown by its number,
    as U+4E2D. Ends of lines are spaces.
    """
    shown = " ".join(text.split()).replace("->", "→").replace("+-", "±")
    shown = re.sub(r"(?<![\w.\-])-(?=\d)", "−", shown)
    return "".join(map(_letter, unicodedata.normalize("NFC", JOINED.sub("\0", shown))))


def _letter(letter: str) -> str:
    if letter in SPECIAL:
        return SPECIAL[letter]
    if " " <= letter <= "~":
        return letter
    if letter in SIGNS:
        return rf"$\{SIGNS[letter]}$"
    if letter in LETTERS:
        return rf"\{LETTERS[letter]}{{}}"
    return _accented(letter) or _plain(letter) or rf"\texttt{{U+{ord(letter):04X}}}"


def _accented(letter: str) -> str | None:
    """A letter of the alphabet with one accent."""
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) != 2 or not ("a" <= parts[0].lower() <= "z") or parts[1] not in ACCENTS:
        return None
    base, accent = parts[0], ACCENTS[parts[1]]
    dotless = base in "ij" and accent not in BELOW
    return rf"\{accent}{{\{base}}}" if dotless else rf"\{accent}{{{base}}}"


def _plain(letter: str) -> str | None:
    """What a letter is another form of, such as a raised two, if that is ASCII."""
    parts = unicodedata.normalize("NFKC", letter)
    return "".join(map(_letter, parts)) if parts.isascii() and parts.isprintable() else None
