"""Files and directories are whole or absent."""

import pytest

from diffgap.io.atomic import new_directory, write_json


def test_a_directory_appears_whole_and_replaces_what_was_there(tmp_path):
    for content in ("old", "new"):
        with new_directory(tmp_path / "d") as path:
            (path / "file").write_text(content)
            assert path != tmp_path / "d"
    assert (tmp_path / "d" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_directory_that_breaks_leaves_what_was_there(tmp_path):
    def broken():
        with new_directory(tmp_path / "d") as path:
            (path / "file").write_text("half")
            raise KeyboardInterrupt

    with new_directory(tmp_path / "d") as path:
        (path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        broken()
    assert (tmp_path / "d" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_json_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []
