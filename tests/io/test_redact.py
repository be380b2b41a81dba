"""Secrets are blotted out, and nothing else is."""

import json
import subprocess
import sys

import pytest

from diffgap.errors import UserError
from diffgap.io.redact import redact

SECRETS = [
    ("postgresql://me:pa55@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
    ("postgresql://me:p@ss@db/mlflow", "postgresql://***@db/mlflow"),
    ("s3://AKID:wJalr/bPx@bucket/store", "s3://***@bucket/store"),
    ("https://host/api?token=abc&page=2", "https://host/api?token=***&page=2"),
    ("s3://b/s?access_key=A&secret_key=xyz", "s3://b/s?access_key=***&secret_key=***"),
    ("https://a.blob/c?sv=2022&sig=Zm9v%3D&se=1", "https://a.blob/c?sv=2022&sig=***&se=1"),
    ("https://b.s3/k?X-Amz-Signature=0f9a&x=1", "https://b.s3/k?X-Amz-Signature=***&x=1"),
    ("AccountName=me;AccountKey=Zm9v/YmFy==;X=1", "AccountName=me;AccountKey=***;X=1"),
    ("Server=db;Uid=me;Pwd=pa55;", "Server=db;Uid=me;Pwd=***;"),
    ("MAIL_PASS=pa55 DB_PWD=pa55 GH_PAT=pa55", "MAIL_PASS=*** DB_PWD=*** GH_PAT=***"),
    ("WANDB_API_KEY=1f2e SIGNING_KEY=ab", "WANDB_API_KEY=*** SIGNING_KEY=***"),
    ("connect(password='correct horse', port=1)", "connect(password=***, port=1)"),
    ('{"password": "correct horse", "port": 1}', '{"password": "***", "port": 1}'),
    ("{'secret_key': 'x', 'n': 2}", "{'secret_key': '***', 'n': 2}"),
    (r'"body": "{\"api_key\": \"x1\"}"', r'"body": "{\"api_key\": \"***\"}"'),
    ("aws_secret_access_key = wJalr/bPx", "aws_secret_access_key = ***"),
    ("password = correcthorse", "password = ***"),
    ("password: hunter2", "password: ***"),
    ("x-api-key: 1f2e3d", "x-api-key: ***"),
    ("Authorization: Bearer eyJhbGciOi", "Authorization: Bearer ***"),
    ("Authorization: Basic bWU6cGE1NQ==", "Authorization: Basic ***"),
    ("{'Authorization': 'Basic bWU6cGE1NQ=='}", "{'Authorization': 'Basic ***'}"),
    ("sent Basic bWU6cGE1NQ==", "sent Basic ***"),
    ("curl -H authorization:abc", "curl -H authorization:***"),
    (f"hf_{'AbCdE' * 7} refused", "*** refused"),
    (f"glpat-{'x-Y_9' * 4} refused", "*** refused"),
    ("key AKIAIOSFODNN7EXAMPLE is unknown", "key *** is unknown"),
]

INNOCENT = [
    "user@host: 32 tokens of 512",
    "sqlite:////home/me/runs/mlflow.db",
    "http://127.0.0.1:8265/api/packages@v2",
    "s3://bucket/store@v2",
    "tokens=512 max_tokens=32 tokenizer=roberta",
    '{"signature": "1f2e3d4c5b6a", "tokens": "512"}',
    "signature=1f2e3d4c",
    "HF_TOKEN: expired; log in again",
    "--env GH_TOKEN: it is not set here; export it, or leave it out",
    "trial.cdm.key (line 12): 1.4 is not in (0, 1)",
    "key = 3, sort_keys=True, monkey: 1234567",
    "token = page.token",
    "secret = ask(name)",
    "stores/hf_clap_laion_larger_clap_music_and_speech",
    "bypass=true compass=north",
    "basic configuration of the Basic encoder",
    "batched: skate-park is a task-4 label; disk-size 12",
]


@pytest.mark.parametrize(("text", "shown"), SECRETS)
def test_secrets_are_hidden(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize("text", INNOCENT)
def test_other_text_stays(text):
    assert redact(text) == text


@pytest.mark.parametrize(("text", "_"), SECRETS)
def test_json_stays_json(text, _):
    """Records are redacted as the JSON that they are stored as."""
    assert json.loads(redact(json.dumps({"spec": text, "n": 1})))["n"] == 1


@pytest.mark.parametrize(
    "name",
    ["MLFLOW_TRACKING_PASSWORD", "SMTP_PASS", "DB_PWD", "GITLAB_PAT", "OPENAI_API_KEY",
     "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "SSH_KEY"],
)  # fmt: skip
def test_values_of_telling_environment_variables(name, monkeypatch):
    monkeypatch.setenv(name, "correct horse")
    assert redact("login with correct horse failed on host") == "login with *** failed on host"


@pytest.mark.parametrize(
    ("name", "value"),
    [("OLDPWD", "/home/me/sweeps"), ("PWD", "/home/me/sweeps"), ("RAY_AUTH_TOKEN_PATH", "/etc/ray"),
     ("TOKENIZERS_PARALLELISM", "disabled"), ("XKB_KEYMAP", "german"), ("SOME_TOKEN", "on")],
)  # fmt: skip
def test_values_of_other_environment_variables(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    assert redact(f"cannot open {value}/x.yaml") == f"cannot open {value}/x.yaml"


def test_errors_for_users_hold_no_secrets():
    error = UserError("store: ftp://me:pa55@host/store is of an unknown scheme")
    assert error.problems == ["store: ftp://***@host/store is of an unknown scheme"]
    assert "pa55" not in str(error)


BUG = """\
import diffgap.cli.main
from diffgap.__main__ import run
def broken():
    raise RuntimeError("cannot reach " + "ftp://me:pa55" + "@host")
diffgap.cli.main.main = broken
run()
"""


def test_tracebacks_of_bugs_hold_no_secrets():
    done = subprocess.run([sys.executable, "-c", BUG], capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: cannot reach ftp://***@host" in done.stderr
    assert "pa55" not in done.stderr
