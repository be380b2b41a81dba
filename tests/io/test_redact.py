"""Secrets are blotted out, and nothing else is."""

import pytest

from diffgap.io.redact import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pa55@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("https://host/api?token=abc&page=2", "https://host/api?token=***&page=2"),
        ("s3://b/s?access_key=A&secret_key=xyz", "s3://b/s?access_key=***&secret_key=***"),
        ("Authorization: Bearer eyJhbGciOi", "Authorization: Bearer ***"),
        ("user@host: 32 tokens of 512", "user@host: 32 tokens of 512"),
        ("sqlite:////home/me/runs/mlflow.db", "sqlite:////home/me/runs/mlflow.db"),
    ],
)  # fmt: skip
def test_uris_and_headers(text, shown):
    assert redact(text) == shown


def test_values_of_telling_environment_variables(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("SOME_TOKEN", "on")
    assert redact("login with correct horse failed on host") == "login with *** failed on host"
