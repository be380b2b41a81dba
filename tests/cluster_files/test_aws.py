"""cluster/aws.yaml: Ray's own validation of it, and what it would cost and give away."""

import copy
import re

import jsonschema
import pytest
import yaml
from places import CLUSTER, ROOT


@pytest.fixture
def config():
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


@pytest.fixture
def prepared(config):
    """As `ray up` has it, before it talks to AWS."""
    return validated(config)


def validated(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    ready = prepare_config(copy.deepcopy(config))
    validate_config(ready)
    return ready


@pytest.fixture
def workers(prepared):
    types = prepared["available_node_types"]
    return [found for name, found in types.items() if name != prepared["head_node_type"]]


@pytest.fixture
def head(prepared):
    return prepared["available_node_types"][prepared["head_node_type"]]


def test_ray_takes_it(prepared):
    assert prepared["provider"]["type"] == "aws"


def test_ray_would_refuse_a_misspelt_field(config):
    config["idle_timeout_minuets"] = config.pop("idle_timeout_minutes")
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuets"):
        validated(config)


def test_fields_of_machines_are_those_of_ec2(prepared):
    """Ray hands node_config to EC2 as it is; botocore knows which fields that takes."""
    session = pytest.importorskip("botocore.session", reason="pip install boto3").get_session()
    client = session.create_client(
        "ec2", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
    )
    shape = client.meta.service_model.operation_model("RunInstances").input_shape
    from botocore.validate import ParamValidator

    for found in prepared["available_node_types"].values():
        asked = {**found["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(asked, shape)
        assert not report.has_errors(), report.generate_report()


def test_workers_come_and_go_on_the_spot_market(prepared, workers):
    assert workers
    for found in workers:
        assert found["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert found["min_workers"] == 0
        assert found["max_workers"] > 0
        assert found["resources"]["GPU"] >= 1
    assert 0 < prepared["idle_timeout_minutes"] <= 10


def test_the_head_trains_nothing_and_is_not_taken_away(head):
    assert head["resources"].get("GPU", 0) == 0
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_rights_come_from_instance_profiles(prepared, head, workers):
    assert head["node_config"]["IamInstanceProfile"]
    for found in workers:
        profile = found["node_config"]["IamInstanceProfile"]
        assert profile != head["node_config"]["IamInstanceProfile"]
    assert not re.search("AWS_(ACCESS|SECRET)", (CLUSTER / "aws.yaml").read_text())


def test_what_it_mounts_exists(config):
    for local in config["file_mounts"].values():
        if local != "~/.ray/auth_token":  # made by the first command at its head
            assert (ROOT / local).exists(), local
    assert "ray get-auth-token --generate" in (CLUSTER / "aws.yaml").read_text()


def test_what_its_commands_use_is_mounted(config):
    commands = " ".join(config["setup_commands"])
    assert "-c constraints.txt" in commands
    mounts = config["file_mounts"]
    for needed in ("constraints.txt", "pyproject.toml", "README.md", "LICENSE", "diffgap"):
        assert f"~/diffgap/{needed}" in mounts


def test_all_nodes_know_where_results_go_and_ask_for_a_token(config):
    written = "\n".join(config["setup_commands"])
    assert "DIFFGAP_OUTPUT=s3://" in written
    assert "MLFLOW_TRACKING_URI=https://" in written
    assert "RAY_AUTH_MODE=token" in written
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all(command.startswith(". ~/diffgap.env && ") for command in config[kind])


def test_the_dashboard_is_the_heads_own(config):
    assert "dashboard-host" not in " ".join(config["head_start_ray_commands"])
