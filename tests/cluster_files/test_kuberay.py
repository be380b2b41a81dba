"""cluster/kuberay-rayjob.yaml against KubeRay's published schema, and against itself."""

import copy
import json
import shlex

import jsonschema
import pytest
import yaml
from places import CLUSTER, ROOT, parse
from ray import __version__ as ray_version

from diffgap.cli.main import main


@pytest.fixture
def documents():
    text = (CLUSTER / "kuberay-rayjob.yaml").read_text()
    return {found["kind"]: found for found in yaml.safe_load_all(text)}


@pytest.fixture
def job(documents):
    return documents["RayJob"]


@pytest.fixture
def cluster(job):
    return job["spec"]["rayClusterSpec"]


@pytest.fixture
def pods(cluster):
    """The specs of its pods, the head's first."""
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.fixture
def containers(pods):
    return [container for pod in pods for container in pod["containers"]]


@pytest.fixture
def schema(shared):
    return json.loads((shared / "kuberay/rayjob-v1.schema.json").read_text())


def unknown_fields(schema, value, path=""):
    """Paths of the fields that the schema does not know; Kubernetes would drop them in silence."""
    if isinstance(value, list):
        inner = [(schema.get("items", {}), item, f"{path}[{at}]") for at, item in enumerate(value)]
    elif isinstance(value, dict) and not is_open(schema):
        known = schema.get("properties", {})
        unknown = [f"{path}.{name}" for name in value if name not in known]
        inner = [(known[n], v, f"{path}.{n}") for n, v in value.items() if n in known]
        return unknown + [found for each in inner for found in unknown_fields(*each)]
    else:
        return []
    return [found for each in inner for found in unknown_fields(*each)]


def is_open(schema):
    """Whether an object may have fields that are not listed."""
    more = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("additionalProperties")
    # Objects that the schema takes from Kubernetes as they are.
    return bool(more) or ("properties" not in schema and schema.get("type") == "object")


def problems(schema, job):
    """What the schema has against a RayJob."""
    checker = jsonschema.Draft202012Validator(schema)
    return [error.message for error in checker.iter_errors(job)] + unknown_fields(schema, job)


def test_kuberays_schema_takes_it(schema, job):
    assert problems(schema, job) == []


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("spec", "backoffLimit", "backofLimit"),
        ("spec.rayClusterSpec.autoscalerOptions", "idleTimeoutSeconds", "idleTimeout"),
        ("spec.rayClusterSpec.workerGroupSpecs.0", "minReplicas", "minWorkers"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec", "volumes", "volume"),
        (
            "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0",
            "securityContext",
            "securitycontext",
        ),
    ],
)
def test_a_misspelt_field_is_found(schema, job, path, right, wrong):
    job = copy.deepcopy(job)
    place = job
    for step in path.split("."):
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[wrong] = place.pop(right)
    assert any(found.endswith(f".{wrong}") for found in problems(schema, job))


def test_a_wrong_type_is_found(schema, job):
    job["spec"]["backoffLimit"] = "three"
    assert any("'three' is not of type 'integer'" in found for found in problems(schema, job))


def test_its_command_is_a_real_one(job, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse(main, shlex.split(job["spec"]["entrypoint"]))["spec"].is_file()


def test_a_lost_head_starts_it_again_and_its_end_ends_the_machines(job):
    spec = job["spec"]
    assert spec["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["ttlSecondsAfterFinished"] <= 3600


def test_workers_come_when_trials_wait(cluster):
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == 0 < group["maxReplicas"]


def test_gpus_are_the_workers_alone(pods):
    head, *workers = [pod["containers"][0]["resources"] for pod in pods]
    assert "nvidia.com/gpu" not in head["limits"]
    assert workers
    for resources in workers:
        assert resources["limits"]["nvidia.com/gpu"] >= 1


def test_every_container_has_requests_and_limits(containers, cluster):
    for one in [*containers, cluster["autoscalerOptions"]]:
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(one["resources"][kind])


def test_the_head_trains_nothing(cluster):
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_all_pods_share_one_volume_that_exists(documents, pods):
    claim = documents["PersistentVolumeClaim"]
    assert claim["apiVersion"] == "v1"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["spec"]["resources"]["requests"]["storage"]
    for pod in pods:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
                assert mount["mountPath"] == "/shared"
                assert not mount.get("readOnly")


def test_all_pods_know_where_results_go(containers):
    for container in containers:
        values = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert values["DIFFGAP_OUTPUT"] == "file:///shared/runs"
        assert values["DIFFGAP_CACHE"].startswith("/shared/")
        (secret,) = container["envFrom"]
        assert secret["secretRef"]["optional"] is True


def test_nothing_runs_as_root(pods, containers, cluster):
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"USER {pod['securityContext']['runAsUser']}:" in dockerfile
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    for one in [*containers, cluster["autoscalerOptions"]]:
        assert one["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_dashboard_is_not_for_the_world(cluster):
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in cluster["headGroupSpec"]
    assert cluster["authOptions"]["mode"] == "token"


def test_its_image_is_the_dockerfiles_and_has_the_ray_that_it_names(containers, cluster):
    images = {container["image"] for container in containers}
    (image,) = images
    assert f"-t {image} ." in (CLUSTER / "Dockerfile").read_text()
    assert cluster["rayVersion"] == ray_version
