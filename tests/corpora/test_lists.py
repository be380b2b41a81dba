"""The lists of corpora: one bad line costs one row, and is named."""

import pytest

from diffgap.corpora.lists import read_headless, read_table
from diffgap.errors import UserError


def test_rows_know_their_lines_whatever_is_quoted(tmp_path):
    (tmp_path / "a.csv").write_text('file_name,caption\na.wav,"one\ntwo, three"\n\nb.wav,four\n')
    first, second = read_table(tmp_path / "a.csv", ["file_name", "caption"])
    assert first.get("caption") == "one\ntwo, three"
    assert (second.get("file_name"), second.line) == ("b.wav", 5)


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbffile_name,caption\r\na.wav,one\r\n")
    (row,) = read_table(tmp_path / "a.csv", ["file_name", "caption"])
    assert row.values == {"file_name": "a.wav", "caption": "one"}


def test_a_line_that_cannot_be_used_says_why_and_the_others_stand(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"file_name,caption\na.wav,caf\xe9\nb.wav,x,y\nc.wav,ok\n")
    bad, long, good = read_table(tmp_path / "a.csv", ["file_name", "caption"])
    assert (bad.line, bad.problem) == (2, "not UTF-8; save the file as UTF-8")
    assert long.problem == "3 values for 2 columns; quote a value that holds a comma"
    assert good.problem is None


def test_a_list_without_its_columns_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone.csv: missing; write it with columns a,b"):
        read_table(tmp_path / "gone.csv", ["a", "b"])
    (tmp_path / "a.csv").write_text("file_name,text\na.wav,x\n")
    with pytest.raises(UserError, match=r"\(line 1\): no column caption; it has file_name, text"):
        read_table(tmp_path / "a.csv", ["file_name", "caption"])


def test_lists_without_a_header_start_at_line_one(tmp_path):
    (tmp_path / "a.csv").write_text('x,1,"bird chirping, tweeting",test\n')
    (row,) = read_headless(tmp_path / "a.csv", ["id", "start", "label", "split"])
    assert (row.line, row.get("label")) == (1, "bird chirping, tweeting")


def test_a_list_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(UserError, match=r"a.csv: cannot be read: Is a directory; put it there"):
        read_headless(tmp_path / "a.csv", ["id"])
    (tmp_path / "b.csv").write_text('id\n1\n"' + "x" * 200_000 + "\n3\n")
    with pytest.raises(UserError, match=r"b.csv \(line 3\): field larger .*; close the quote"):
        read_table(tmp_path / "b.csv", ["id"])
