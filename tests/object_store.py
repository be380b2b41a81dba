"""An object store on this machine, for pyarrow's own S3 client to talk to."""

import logging
import os
from contextlib import contextmanager

import pyarrow.fs
from moto.server import ThreadedMotoServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def bucket(name="bucket"):
    """The URI of a place in a new bucket, and the environment that opens it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # every request, otherwise
    before = {key: os.environ.get(key) for key in KEYS}
    os.environ.update(KEYS)
    try:
        host, port = server.get_host_and_port()
        options = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1"
        filesystem, _ = pyarrow.fs.FileSystem.from_uri(
            f"s3://{name}/?{options}&allow_bucket_creation=true"
        )
        filesystem.create_dir(name)
        yield f"s3://{name}/runs?{options}"
    finally:
        server.stop()
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
