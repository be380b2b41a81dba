"""cluster/Dockerfile: lint, and what it takes from the repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch

import pytest
from places import CLUSTER, ROOT

DOCKERFILE = CLUSTER / "Dockerfile"


@pytest.fixture(scope="module")
def instructions():
    """Name and arguments of each instruction, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


def all_of(instructions, name):
    return [arguments for found, arguments in instructions if found == name]


def copied(instructions):
    return [source for line in all_of(instructions, "COPY") for source in line.split()[:-1]]


def run_hadolint(path):
    command = shutil.which("hadolint", path=f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")
    if not command:
        pytest.skip('hadolint is missing: pip install -c constraints.txt -e ".[dev]"')
    return subprocess.run([command, str(path)], capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing():
    done = run_hadolint(DOCKERFILE)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path):
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text().replace("USER 1000:1000", "USER root"))
    assert "DL3002" in run_hadolint(wrong).stdout


def test_the_base_is_pinned_and_has_the_python_that_was_tested(instructions):
    (base,) = all_of(instructions, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base)


def test_it_says_which_cuda_the_wheels_bring():
    (toolkit,) = re.findall(r"^cuda-toolkit==(\d+\.\d+)", constraints(), re.M)
    assert f"CUDA {toolkit}" in DOCKERFILE.read_text()


def constraints():
    return (ROOT / "constraints.txt").read_text()


def test_what_it_copies_is_there_and_is_sent_to_the_builder(instructions):
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in ignore if line and not line.startswith("#")]
    assert patterns[0] == "*"
    sent = {line[1:] for line in patterns if line.startswith("!")}
    sources = copied(instructions)
    assert "diffgap" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
    assert set(sources) == sent
    assert any(fnmatch("diffgap/__pycache__", pattern) for pattern in patterns[1:])


def test_packages_are_installed_by_the_constraints_and_before_the_code(instructions):
    installs = [line for line in all_of(instructions, "RUN") if "pip install" in line]
    assert "-c constraints.txt" in installs[0]
    assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs)
    order = [line for _, line in instructions]
    assert order.index(installs[0]) < order.index("diffgap diffgap") < order.index(installs[1])


def test_its_extras_exist(instructions):
    (extras,) = re.findall(r"\.\[([\w,]+)\]", " ".join(all_of(instructions, "RUN")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert {"cluster", "search"} <= set(extras.split(","))


def test_what_the_build_needs_is_copied_before_it(instructions):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = all_of(instructions, "COPY")[0].split()
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= set(first)


def test_it_does_not_end_as_root(instructions):
    user = all_of(instructions, "USER")[-1]
    number = int(user.partition(":")[0])
    assert number != 0
    assert f"useradd --uid {number}" in " ".join(all_of(instructions, "RUN"))


def test_its_version_is_the_packages(instructions):
    import diffgap

    labels = " ".join(all_of(instructions, "LABEL"))
    assert f'org.opencontainers.image.version="{diffgap.__version__}"' in labels


def test_no_secret_is_built_in(instructions):
    text = " ".join(all_of(instructions, "ENV") + all_of(instructions, "ARG"))
    assert not re.search("TOKEN|PASSWORD|SECRET|KEY", text)
