"""Embeddings that people already have become stores, whatever file they are in."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diffgap.errors import UserError
from diffgap.store.importing import import_store
from diffgap.store.store import EmbeddingStore

N, D = 12, 8
IDS = [f"clip{i}" for i in range(N)]
SPLITS = ["train"] * 8 + ["val"] * 2 + ["test"] * 2


def vectors(seed, *shape):
    return np.random.default_rng(seed).normal(size=(*shape, D)).astype(np.float32)


AUDIO, TEXT = vectors(0, N), vectors(1, N)
CAPTIONS = [f"caption {i}" for i in range(N)]


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def save(path, suffix):
    """The same twelve pairs in each format, under the names people give them."""
    if suffix == ".npz":
        file = path / "a.npz"
        np.savez(file, id=IDS, split=SPLITS, audio_embeds=AUDIO, text_embeds=TEXT, caption=CAPTIONS)
        return file, {}
    if suffix == ".pt":
        columns = {"ids": IDS, "split": SPLITS, "captions": CAPTIONS}
        tensors = {"audio": torch.from_numpy(AUDIO), "text": torch.from_numpy(TEXT).bfloat16()}
        torch.save({**columns, **tensors}, path / "a.pt")
        return path / "a.pt", {}
    if suffix == ".parquet":
        columns = {"filename": IDS, "subset": SPLITS, "sentence": CAPTIONS}
        lists = {"audio_features": AUDIO.tolist(), "text_features": TEXT.tolist()}
        pq.write_table(pa.table({**columns, **lists}), path / "a.parquet")
        return path / "a.parquet", {}
    with (path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "split", "caption"), *zip(IDS, SPLITS, CAPTIONS, strict=True)])
    np.save(path / "audio.npy", AUDIO)
    np.save(path / "text.npy", TEXT)
    return path / "a.csv", {"audio": path / "audio.npy", "text": path / "text.npy"}


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".parquet", ".csv"])
def test_every_format_makes_the_same_pairs(tmp_path, suffix):
    source, arrays = save(tmp_path, suffix)
    import_store(source, tmp_path / "store", arrays=arrays, encoder="clap")
    store = EmbeddingStore.open(tmp_path / "store")
    assert store.manifest.corpus.counts == {"train": 8, "val": 2, "test": 2}
    assert (store.manifest.encoder.name, store.manifest.corpus.name) == ("clap", "a")
    pairs = store.pairs("text-audio", "train")
    assert pairs.ids == tuple(IDS[:8])
    assert np.abs(pairs.a - unit(AUDIO)[:8]).max() < 1e-6
    assert np.abs(pairs.x - unit(TEXT)[:8]).max() < (0.01 if suffix == ".pt" else 1e-6)


def test_several_captions_a_clip_come_as_a_block_or_with_the_clips_they_are_of(tmp_path):
    block = vectors(2, N, 3)
    told = [[f"{i} {j}" for j in range(3)] for i in range(N)]
    np.savez(tmp_path / "a.npz", id=IDS, split=SPLITS, audio=AUDIO, text=block, caption=told)
    import_store(tmp_path / "a.npz", tmp_path / "block")
    owners = np.repeat(IDS, 3)
    np.savez(
        tmp_path / "b.npz",
        id=IDS,
        split=SPLITS,
        audio=AUDIO,
        text=block.reshape(-1, D),
        clip_id=owners,
        caption=np.ravel(told),
    )
    import_store(tmp_path / "b.npz", tmp_path / "flat")
    one, other = (EmbeddingStore.open(tmp_path / name) for name in ("block", "flat"))
    assert one.fingerprint == other.fingerprint
    assert list(one.pairs("text-audio", "test").owner) == [0, 0, 0, 1, 1, 1]


def test_video_without_text_serves_video_audio(tmp_path):
    np.savez(tmp_path / "a.npz", mine=AUDIO, video=vectors(3, N))
    made = import_store(tmp_path / "a.npz", tmp_path / "store", columns={"audio": "mine"})
    assert made.manifest.task == ["video-audio"]
    assert sum(made.manifest.corpus.counts.values()) == N


def test_a_modality_that_is_named_is_kept_and_others_are_not(tmp_path):
    np.savez(tmp_path / "a.npz", clip_image=AUDIO, text=TEXT, split=SPLITS, mel=vectors(4, N))
    named = import_store(tmp_path / "a.npz", tmp_path / "one", columns={"image": "clip_image"})
    assert named.tasks == named.manifest.task == ["text-image"]
    pairs = EmbeddingStore.open(tmp_path / "one").pairs("text-image", "test")
    assert np.abs(pairs.a - unit(AUDIO)[10:]).max() < 1e-6
    assert np.abs(pairs.x - unit(TEXT)[10:]).max() < 1e-6
    np.savez(tmp_path / "b.npz", text=TEXT, split=SPLITS)
    np.save(tmp_path / "image.npy", AUDIO)
    files = {"image": tmp_path / "image.npy"}
    beside = import_store(tmp_path / "b.npz", tmp_path / "other", arrays=files)
    assert beside.fingerprint == named.fingerprint


def test_a_column_that_is_named_is_not_found_a_second_time(tmp_path):
    np.savez(tmp_path / "a.npz", audio_embeds=AUDIO, text=TEXT, label=CAPTIONS)
    columns = {"image": "audio_embeds", "caption": "label"}
    made = import_store(tmp_path / "a.npz", tmp_path / "store", columns=columns)
    assert made.tasks == ["text-image"]
    assert set(made.labels().values()) == set(CAPTIONS)
    np.savez(tmp_path / "b.npz", clip=AUDIO, text=TEXT)
    made = import_store(tmp_path / "b.npz", tmp_path / "clip", columns={"image": "clip"})
    assert made.tasks == ["text-image"]
    assert set(made.labels()) == set(map(str, range(N)))


def test_a_second_encoder_of_a_modality_is_a_modality(tmp_path):
    np.savez(tmp_path / "a.npz", audio=AUDIO, beats=TEXT)
    made = import_store(tmp_path / "a.npz", tmp_path / "store", columns={"audio_2": "beats"})
    assert made.tasks == ["audio_2-audio"]


def refused(tmp_path, columns=None, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError) as error:
        import_store(tmp_path / "a.npz", tmp_path / "store", columns=columns)
    assert not (tmp_path / "store").exists()
    return "\n".join(error.value.problems)


def test_what_does_not_make_pairs_is_refused(tmp_path):
    told = refused(tmp_path, sound=AUDIO, words=TEXT)
    assert "two modalities, and the source has none among its columns sound, words; name" in told
    told = refused(tmp_path, id=IDS, audio=AUDIO)
    assert "two modalities, and the source has audio among its columns id, audio; name" in told
    told = refused(tmp_path, {"audoi": "a", "text": "wrds"}, a=AUDIO, words=TEXT)
    assert "unknown column 'audoi'; did you mean audio" in told
    assert "the source has no 'wrds'; did you mean words" in told
    told = refused(tmp_path, id=IDS[:5], audio=AUDIO, text=TEXT)
    assert "columns of different lengths: id has 5 rows, audio has 12" in told
    told = refused(tmp_path, audio=AUDIO, text=TEXT[:7])
    assert "text has 7 rows, for 12 clips and 7 captions; give clip_id" in told
    assert "audio: shape (12,); embeddings are (N, D)" in refused(
        tmp_path, audio=AUDIO[:, 0], text=TEXT
    )


def test_what_cannot_be_a_modality_is_refused(tmp_path):
    told = refused(tmp_path, {"duration": "long"}, audio=AUDIO, text=TEXT, long=np.ones(N))
    assert "duration: shape (12,); embeddings are (N, D); duration is a modality, as it is" in told
    told = refused(tmp_path, {"image": "path"}, audio=AUDIO, text=TEXT, path=CAPTIONS)
    assert "image: rows of different shapes, or not numbers; image is a modality" in told
    told = refused(tmp_path, {"image": "frames"}, audio=AUDIO, text=TEXT, frames=vectors(0, N, 3))
    assert "image: shape (12, 3, 8); embeddings are (N, D)" in told
    told = refused(tmp_path, {"CLIP-L": "mine"}, audio=AUDIO, text=TEXT, mine=AUDIO)
    assert "'CLIP-L' cannot name a modality; use a-z, 0-9 and _" in told
    told = refused(tmp_path, {"audio_embeds": "mine"}, text=TEXT, mine=AUDIO)
    assert "'audio_embeds' is what sources call audio; write audio" in told
    told = refused(tmp_path, {"image": "mine"}, audio=AUDIO, text=TEXT, mine=AUDIO[:, :5])
    assert "items: image is fixed_size_list" in told


def test_vectors_that_cannot_be_normalised_are_named(tmp_path):
    audio = AUDIO.copy()
    audio[3], audio[4, 0] = 0, np.nan
    told = refused(tmp_path, id=IDS, audio=audio, text=TEXT)
    assert "audio is zero or not L2-normalised in rows 'clip3'" in told
    assert "audio is not finite in rows 'clip4'" in told


def test_files_that_could_run_code_or_are_no_data_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", audio=np.array([{"a": 1}], dtype=object))
    (tmp_path / "a.parquet").write_text("no parquet")
    torch.save({"audio": object}, tmp_path / "a.pt")
    for name in ("objects.npz", "a.parquet", "a.pt"):
        with pytest.raises(UserError, match=rf"SOURCE: .*{name} cannot be read"):
            import_store(tmp_path / name, tmp_path / "store")
    with pytest.raises(UserError, match=r"a.txt is not one of .npz, .csv"):
        import_store(tmp_path / "a.txt", tmp_path / "store")
    with pytest.raises(UserError, match=r"no file .*gone.npz"):
        import_store(tmp_path / "gone.npz", tmp_path / "store")


def test_text_in_bytes_is_text(tmp_path):
    np.savez(tmp_path / "a.npz", id=np.array(IDS, bytes), audio=AUDIO, text=TEXT,
             caption=np.char.encode([*CAPTIONS[1:], "Regentröpfchen"], "utf-8"))  # fmt: skip
    store = import_store(tmp_path / "a.npz", tmp_path / "store")
    assert store.caption_texts(["clip0", "clip11"]) == [
        ("clip0", "caption 1"), ("clip11", "Regentröpfchen")
    ]  # fmt: skip


def test_several_captions_for_one_vector_are_refused(tmp_path):
    columns = {"audio": AUDIO.tolist(), "text": TEXT.tolist(), "caption": [["a", "b"]] * N}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"caption: holds lists; .*, or a vector for each"):
        import_store(tmp_path / "a.parquet", tmp_path / "store")


NONSENSE = {
    "id: shape (); give one value a row": {"id": np.array(3)},
    "id: shape (12, 2); give one value a row": {"id": np.zeros((N, 2))},
    "split: shape (); give one value a row": {"split": np.array("train")},
    "label: shape (); give one value a row": {"label": np.array(1)},
    "caption: shape (); give one value a row": {"caption": np.array("rain")},
    "clip_id: shape (); give one value a row": {"clip_id": np.array("a")},
    "label: holds text that is not UTF-8": {"label": np.array([b"\xff"] * N)},
    "id: holds text that is not UTF-8": {"id": np.array([*IDS[1:], "\ud800"])},
    "items: audio has 65537 dimensions, more than 65536; give embeddings": {
        "audio": np.ones((N, 2**16 + 1), np.float16)
    },
    "audio: shape (12, 0); embeddings are (N, D)": {"audio": AUDIO[:, :0]},
    "audio: shape (0, 8); embeddings are (N, D)": {"audio": AUDIO[:0], "text": TEXT[:0]},
    "audio: rows of different shapes, or not numbers": {"audio": AUDIO.astype(complex)},
    "text: rows of different shapes, or not numbers": {"text": AUDIO.astype("M8[s]")},
    "audio is not finite in rows": {"audio": AUDIO.astype(float) * 1e300},
    "caption: one for each clip, where text has several": {
        "text": vectors(1, N, 2), "caption": CAPTIONS
    },
}  # fmt: skip


@pytest.mark.parametrize(("message", "columns"), NONSENSE.items(), ids=NONSENSE.keys())
def test_columns_of_other_shapes_and_types_are_refused_by_name(tmp_path, message, columns):
    told = refused(tmp_path, **{"audio": AUDIO, "text": TEXT, **columns})
    assert message in told
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_text_that_is_missing_is_refused_but_for_labels_and_captions(tmp_path):
    columns = {"audio": AUDIO.tolist(), "text": TEXT.tolist(), "caption": [None, *CAPTIONS[1:]]}
    pq.write_table(pa.table({**columns, "label": [None] * N}), tmp_path / "a.parquet")
    store = import_store(tmp_path / "a.parquet", tmp_path / "store")
    assert store.caption_texts(["0", "1"]) == [("0", ""), ("1", "caption 1")]
    pq.write_table(pa.table({**columns, "id": [None, *IDS[1:]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"id: is missing \(null\) in rows 0; fill it"):
        import_store(tmp_path / "a.parquet", tmp_path / "other")


def test_a_header_that_claims_more_than_any_memory_is_refused(tmp_path):
    """An array file of some bytes, and of terabytes by its own account."""
    np.savez(tmp_path / "a.npz", text=TEXT)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8)}"
    header = header.ljust(117) + b"\n"
    (tmp_path / "audio.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header + bytes(64))
    with pytest.raises(UserError, match=r"--array: .*audio.npy cannot be read: Unable to allocate"):
        import_store(
            tmp_path / "a.npz", tmp_path / "s", arrays={"audio": tmp_path / "audio.npy"}
        )  # fmt: skip
