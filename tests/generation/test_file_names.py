"""Clips of any ids get files of their own, whatever file system they are written to."""

import os
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from diffgap.generation.file_names import file_names
from diffgap.io.printable import csv_cell


def test_ids_that_can_name_a_file_do():
    assert file_names(["train-00042", "dog 1.wav", "Ünïcode_30"]) == [
        "train-00042", "dog 1.wav", "Ünïcode_30"
    ]  # fmt: skip
    assert file_names(["a/b", "c:d", "e\nf"]) == ["a_b", "c_d", "e_f"]


def test_ids_that_would_share_a_file_are_told_apart_and_keep_their_names():
    names = file_names(["a/b", "a_b", "other"])
    assert names[2] == "other"
    assert all(name.startswith("a_b-") for name in names[:2])
    assert names[0] != names[1]
    assert names == list(reversed(file_names(["other", "a_b", "a/b"])))
    for alike in (
        ["Dog", "dog"],
        ["a.", "a"],
        ["a ", "a"],
        ["straße", "STRASSE"],
        ["é", "e\u0301"],
    ):
        assert len(set(map(str.casefold, file_names(alike)))) == 2, alike
    first = file_names(["a/b", "a_b"])[0]
    assert len(set(file_names(["a/b", "a_b", first]))) == 3  # an id that is another's new name


def test_names_that_file_systems_refuse_or_hide_are_changed():
    for name in (
        "",
        ".",
        "..",
        "con",
        "COM1.x",
        "nul.tar.gz",
        "-rf",
        ".hidden",
        "=1+1",
        "\u202egpj",
        "x" * 4000,
    ):
        (safe,) = file_names([name])
        assert safe not in ("", ".", "..")
        assert not safe.startswith((".", "-"))
        assert not safe.endswith((".", " "))
        assert safe.lower().split(".")[0] not in ("con", "com1", "nul")
        assert len(safe.encode()) <= 200


ANY = st.text(max_size=6) | st.text("aA.=-/ \t\u202e\u00e9e\u0301", max_size=4)


@settings(max_examples=50)
@given(st.lists(ANY, min_size=1, max_size=6, unique=True))
def test_any_ids_have_files_of_their_own(ids):
    """On a file system that ignores case and accents' forms, as macOS has by default."""
    names = file_names(ids)
    assert len({unicodedata.normalize("NFD", name.casefold()) for name in names}) == len(ids)
    for name in names:
        assert os.path.basename(name) == name
        assert csv_cell(name) == name  # so that an index names the file that there is
        name.encode()
