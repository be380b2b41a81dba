"""The commands that use a trained bridge: files in and out, queries, folders to share."""

import json
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.cli.main import main
from diffgap.store.importing import import_store
from diffgap.store.schema import vector_column
from diffgap.store.store import EmbeddingStore

D = 128


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments):
    """The lines of a request that is refused."""
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    return done.stderr.splitlines()


def save(path, method="diffgap", cdm=True, bst=True, modalities=("text", "audio"), **facts):
    torch.manual_seed(0)
    score = ScoreConfig("rerank" if cdm else "cosine", top_k=5, levels=(0.5, 0.9))
    bridge = make_bridge(BridgeConfig(modalities, D, 32, 2, cdm, bst, method, score=score)).eval()
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    bridge.save_pretrained(path, **facts)
    return bridge


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a bridge called b."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "b")
    return tmp_path


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    return F.normalize(torch.randn(6, D, generator=generator), dim=-1).numpy()


def expected(rows, source="text"):
    return Bridge.from_pretrained("b").bridge(torch.from_numpy(rows), source).numpy()


# bridge -------------------------------------------------------------------------------------------


def test_an_npy_comes_out_as_the_bridge_gives_it(here, rows):
    np.save("in.npy", rows)
    done = invoke("bridge", "b", "in.npy", "new/out.npy")
    assert done.exit_code == 0, done.output
    assert "6 text embeddings carried over to audio" in done.output
    np.testing.assert_array_equal(np.load("new/out.npy"), expected(rows))
    assert [path.name for path in Path("new").iterdir()] == ["out.npy"]


def test_rows_are_normalised_and_it_is_said_once(here, rows):
    np.save("in.npy", rows)
    np.save("long.npy", (5 * rows).astype(np.float16))
    assert "L2-normalised" not in invoke("bridge", "b", "in.npy", "out.npy").output
    assert invoke("bridge", "b", "long.npy", "out2.npy").output.count("L2-normalised") == 1
    np.testing.assert_allclose(np.load("out2.npy"), np.load("out.npy"), atol=1e-2)


def test_an_npz_keeps_its_other_arrays(here, rows):
    np.savez("in.npz", text=rows, audio=rows[:2], ids=np.arange(6))
    assert invoke("bridge", "b", "in.npz", "out.npz", "--from", "audio").exit_code == 0
    out = np.load("out.npz")
    np.testing.assert_array_equal(out["audio"], expected(rows[:2], "audio"))
    np.testing.assert_array_equal(out["text"], rows)
    np.testing.assert_array_equal(out["ids"], np.arange(6))


@pytest.mark.parametrize("kind", ["fixed", "lists"])
def test_a_parquet_keeps_its_other_columns_and_their_order(here, rows, kind):
    column = vector_column(rows) if kind == "fixed" else pa.array(rows.tolist())
    pq.write_table(pa.table({"id": list("abcdef"), "e": column, "n": range(6)}), "in.parquet")
    assert invoke("bridge", "b", "in.parquet", "out.parquet", "--array", "e").exit_code == 0
    out = pq.read_table("out.parquet")
    assert out.column_names == ["id", "e", "n"]
    assert out["id"].to_pylist() == list("abcdef")
    np.testing.assert_allclose(np.array(out["e"].to_pylist()), expected(rows), atol=1e-6)


def test_torch_files_come_out_as_they_went_in(here, rows):
    torch.save(torch.from_numpy(rows), "in.pt")
    torch.save({"text": torch.from_numpy(rows), "names": ["a"]}, "in.pth")
    assert invoke("bridge", "b", "in.pt", "out.pt").exit_code == 0
    assert invoke("bridge", "b", "in.pth", "out.pth").exit_code == 0
    plain, named = (torch.load(f, weights_only=True) for f in ("out.pt", "out.pth"))
    np.testing.assert_array_equal(plain.numpy(), expected(rows))
    assert named["text"].equal(plain)
    assert named["names"] == ["a"]


def test_a_store_becomes_ids_captions_and_vectors_of_a_split(here, small_store):
    done = invoke("bridge", "b", small_store, "out.parquet", "--split", "val")
    assert done.exit_code == 0, done.output
    pairs = EmbeddingStore.open(small_store).pairs("text-audio", "val")
    out = pq.read_table("out.parquet")
    assert out.column_names == ["id", "caption", "bridged"]
    assert out["id"].to_pylist() == [pairs.ids[i] for i in pairs.owner]
    assert all(out["caption"].to_pylist())
    np.testing.assert_array_equal(np.array(out["bridged"].to_pylist(), "f"), expected(pairs.x))
    assert invoke("bridge", "b", small_store, "a.parquet", "--from", "audio").exit_code == 0
    assert pq.read_table("a.parquet").column_names == ["id", "bridged"]


def test_a_method_without_a_network_gives_its_space_and_the_frozen_one_nothing(here, rows):
    np.save("in.npy", rows)
    center = save(here / "center", "center", cdm=False, bst=False)
    save(here / "none", "none", cdm=False, bst=False)
    done = invoke("bridge", "center", "in.npy", "out.npy", "--from", "audio")
    assert "6 audio embeddings, in the space of center" in done.output
    np.testing.assert_array_equal(np.load("out.npy"), center.space(torch.from_numpy(rows), 1))
    (line,) = refused("bridge", "none", "in.npy", "out2.npy")
    assert "none, leaves embeddings as they are" in line


# Places that cannot be written to -----------------------------------------------------------------


@contextmanager
def full_disk():
    """As far as this process's files are concerned: none of them can hold 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_push_into_a_full_place_leaves_what_was_there(here):
    assert invoke("push", "b", "shared").exit_code == 0
    before = content(here / "shared")
    with full_disk():
        (line,) = refused("push", "b", "shared", "--name", "other")
    assert "shared/README.md: File too large" in line
    assert content(here / "shared") == before


def test_a_bridged_file_in_a_full_place_is_none(here, rows):
    np.save("in.npy", rows)
    before = sorted(here.iterdir())
    with full_disk():
        (line,) = refused("bridge", "b", "in.npy", "out.npy")
    assert "out.npy: " in line
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bridge", "b", "in.npy", "in.npy/out.npy"), "in.npy"),
        (("push", "b", "in.npy/shared"), "in.npy"),
        (("push", "b", "in.npy"), "in.npy"),
        (("push", "b", "taken"), "README.md"),
        (("push", "in.npy", "shared"), "in.npy holds no config.json"),
    ],
)
def test_a_thing_in_the_way_is_named_and_nothing_is_left(here, rows, arguments, words):
    np.save("in.npy", rows)
    (here / "taken" / "README.md").mkdir(parents=True)
    before = sorted(here.rglob("*"))
    assert words in refused(*arguments)[-1]
    assert sorted(here.rglob("*")) == before


BAD_INPUTS = {
    "shape.npy": "IN: shape (6, 64); this bridge takes (N, 128)",
    "one.npy": "IN: shape (128,)",
    "int.npy": "IN: numbers of type int64",
    "zero.npy": "IN: rows 2, 3 are zero",
    "nan.npy": "IN: rows 1 are not finite",
    "torn.npy": "IN: torn.npy cannot be read",
    "torn.npz": "IN: torn.npz cannot be read",
    "torn.pt": "IN: torn.pt cannot be read",
    "torn.parquet": "IN: torn.parquet cannot be read",
    "missing.npy": "IN: no file missing.npy",
    "rows.csv": "IN: rows.csv is not one of .npy, .npz, .parquet, .pt, .pth; convert",
    "two.npz": "--array: two.npz has none called text; use one of left, right",
    "null.parquet": "IN: text has no vector (null) in rows 1",
    "ragged.parquet": "IN: text has rows of 2 to 128 numbers",
}


@pytest.fixture
def bad_inputs(here, rows):
    def changed(at, value):
        other = rows.copy()
        other[at] = value
        return other

    np.save("shape.npy", rows[:, :64])
    np.save("one.npy", rows[0])
    np.save("int.npy", np.ones((6, D), np.int64))
    np.save("zero.npy", changed([2, 3], 0))
    np.save("nan.npy", changed([1], np.inf))
    for suffix in ("npy", "npz", "pt", "parquet"):
        Path(f"torn.{suffix}").write_bytes(b"PK\x03\x04 torn")
    Path("rows.csv").write_text("1,2\n")
    np.savez("two.npz", left=rows, right=rows)
    ragged = [rows[0].tolist(), [1.0, 2.0]]
    pq.write_table(pa.table({"text": pa.array([ragged[0], None])}), "null.parquet")
    pq.write_table(pa.table({"text": pa.array(ragged)}), "ragged.parquet")


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_input_is_one_line_and_nothing_is_written(bad_inputs, name):
    (line,) = refused("bridge", "b", name, f"out/o{Path(name).suffix}")
    assert line.startswith(f"error: {BAD_INPUTS[name]}")
    assert not Path("out").exists()


def test_out_is_neither_replaced_nor_of_another_kind(here, rows):
    np.save("in.npy", rows)
    Path("taken.txt").write_text("mine")
    first, second = refused("bridge", "b", "in.npy", "taken.txt")
    assert "OUT: taken.txt exists already" in first
    assert "must end in .npy" in second
    assert Path("taken.txt").read_text() == "mine"


def test_wrong_names_say_what_there_is(here, rows):
    np.savez("in.npz", text=rows)
    one_way = save(here / "one", bst=False)
    assert one_way.directions == (0,)
    assert refused("bridge", "one", "in.npz", "o.npz", "--from", "audio") == [
        "error: --from: this bridge goes from text, not audio"
    ]
    (line,) = refused("bridge", "b", "in.npz", "o.npz", "--array", "texts")
    assert line == "error: --array: in.npz has no 'texts'; did you mean text?"
    (line,) = refused("bridge", "nowhere", "in.npz", "o.npz")
    assert "nowhere holds no config.json" in line
    (here / "b" / "bridge.safetensors").write_bytes(b"torn")
    (line,) = refused("bridge", "b", "in.npz", "o.npz")
    assert line.startswith("error: BRIDGE: b/bridge.safetensors: cannot be read")


# retrieve -----------------------------------------------------------------------------------------


def test_texts_find_clips_and_json_is_json_alone(here, small_store):
    done = invoke(
        "retrieve", "b", "--store", small_store, "a dog barks", "rain", "--top", 3,
        "--format", "json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)
    assert (first["query"], second["query"]) == ("a dog barks", "rain")
    assert [hit["rank"] for hit in first["hits"]] == [1, 2, 3]
    scores = [hit["score"] for hit in first["hits"]]
    assert scores == sorted(scores, reverse=True)
    test = EmbeddingStore.open(small_store).pairs("text-audio", "test").ids
    assert all(hit["clip"] in test and hit["caption"] for hit in first["hits"])


def test_the_table_shows_every_hit(here, small_store):
    store = EmbeddingStore.open(small_store)
    clip = store.pairs("text-audio", "test").ids[0]
    done = invoke("retrieve", "b", "--store", small_store, "--clip", clip, "--top", 4)
    assert done.exit_code == 0, done.output
    assert f"{clip} (audio)" in done.output
    assert "its own" in done.output
    assert store.labels()[clip] is not None


def test_video_finds_audio_without_an_encoder(here, small_store):
    save(here / "v", modalities=("video", "audio"))
    clip = EmbeddingStore.open(small_store).pairs("video-audio", "val").ids[0]
    done = invoke(
        "retrieve",
        "v",
        "--store",
        small_store,
        "--clip",
        clip,
        "--split",
        "val",
        "--format",
        "json",
    )
    (answer,) = json.loads(done.stdout)
    assert answer["from"] == "video"
    assert len({hit["clip"] for hit in answer["hits"]}) == 10
    (line,) = refused("retrieve", "v", "--store", small_store, "a dog barks")
    assert line == "error: TEXT: this bridge joins video and audio; give --clip ID"


def imported(path, rows, encoder, checkpoint_hash=None):
    np.savez("e.npz", text=rows, audio=rows, split=["test"] * len(rows))
    import_store(Path("e.npz"), path, encoder=encoder)
    if checkpoint_hash:
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["encoder"]["checkpoint_hash"] = checkpoint_hash
        (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_weights_that_did_not_make_the_store_are_refused_with_both_hashes(here, rows):
    store = imported(here / "s", rows, "soundscape", "0" * 64)
    (line,) = refused("retrieve", "b", "--store", store, "a dog")
    assert "0" * 64 in line
    from diffgap.encoders import EncoderChoice

    assert EncoderChoice("soundscape").load().checkpoint_hash in line


def test_imported_stores_say_what_they_cannot_do(here, rows):
    (line,) = refused("retrieve", "b", "--store", imported(here / "s", rows, "mine"), "a dog")
    assert "'mine', is not one of diffgap's; give --clip ID" in line
    done = invoke("retrieve", "b", "--store", imported(here / "t", rows, "soundscape"), "a dog")
    assert done.exit_code == 0
    assert "does not record its weights" in done.output


def test_mistakes_of_a_query_are_told(here, small_store, rows):
    (line,) = refused("retrieve", "b", "--store", small_store)
    assert line.startswith("error: TEXT: missing")
    clip = EmbeddingStore.open(small_store).pairs("text-audio", "test").ids[0]
    (line,) = refused("retrieve", "b", "--store", small_store, "--clip", clip + "x")
    assert "did you mean" in line
    (line,) = refused("retrieve", "b", "--store", small_store, "--clip", clip, "--from", "video")
    assert line == "error: --from: this bridge joins text and audio, not video"
    (line,) = refused("retrieve", "b", "--store", imported(here / "s", rows[:, :64], "x"), "a")
    assert "takes 128 dimensions, and the store has 64" in line


# push ---------------------------------------------------------------------------------------------


def test_a_trial_is_pushed_with_its_facts_and_its_stores_encoder(here, small_store):
    store = EmbeddingStore.open(small_store)
    facts = {"name": "soundscapes", "fingerprint": store.fingerprint}
    bridge = save(here / "trial", store=facts, signature="0123456789ab")
    Path("trial/metrics.json").write_text(json.dumps({"test/text_to_audio/R1": 12.5}))
    done = invoke("push", "trial", "shared", "--store", small_store, "--license", "cc-by-4.0")
    assert done.exit_code == 0, done.output
    card = Path("shared/README.md").read_text()
    assert "| test | text->audio | 12.5 |" in card
    assert store.manifest.encoder.checkpoint_hash in card
    assert 'license: "cc-by-4.0"' in card
    config = json.loads(Path("shared/config.json").read_text())
    assert config["signature"] == "0123456789ab"
    assert config["encoder"]["name"] == "soundscape"
    again = Bridge.from_pretrained("shared")
    assert all(v.equal(again.state_dict()[n]) for n, v in bridge.state_dict().items())
    assert "does not name the encoder" in invoke("push", "trial", "other").output


def test_push_refuses_another_store_and_a_foreign_readme(here, small_store):
    save(here / "trial", store={"name": "x", "fingerprint": "fb37"})
    (line,) = refused("push", "trial", "shared", "--store", small_store)
    assert line.startswith("error: --store:")
    assert "fb37" in line
    Path("mine").mkdir()
    Path("mine/README.md").write_text("# mine\n")
    (line,) = refused("push", "trial", "mine")
    assert line.endswith("no model card of diffgap's; give another folder")
    assert not Path("shared").exists()
