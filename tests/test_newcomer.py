"""A newcomer's five tasks, done for real in a copy of the package: how many files each takes.

A noise schedule, a sibling method, a retrieval metric, a table of the report and a setting of the
trial are added in the places that docs/architecture.md names, and in no others. One sweep then
shows each of them where a user would look.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CARRIED = ROOT / "tests" / "data" / "carried.tar.xz"

SPEC = """\
name: newcomer
store: store
trial:
  cdm: {schedule: halfway}
  loss: {label_smoothing: 0.25}
  denoiser: {width: 16, blocks: 1}
  train: {steps: 20, batch_size: 16, epoch_steps: 20}
  score: {top_k: 2}
axes: {method: [none, flip, diffgap]}
seeds: 1
report: {tables: [methods, signatures]}
"""


class Newcomer:
    """A copy of the package, and the files that each task has touched."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, set[str]] = defaultdict(set)
        # Links cost nothing; a file that is edited is replaced, never written through its link.
        shutil.copytree(
            ROOT / "diffgap",
            root / "diffgap",
            copy_function=os.link,
            ignore=shutil.ignore_patterns("__pycache__"),
        )

    def write(self, task: str, path: str, text: str) -> None:
        self.files[task].add(path)
        target = self.root / "diffgap" / path
        target.unlink(missing_ok=True)
        target.write_text(text)

    def insert(self, task: str, path: str, before: str, text: str) -> None:
        """Puts text before a line that is there once."""
        content = (self.root / "diffgap" / path).read_text()
        assert content.count(before) == 1, (path, before)
        self.write(task, path, content.replace(before, text + before))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return subprocess.run(
            [sys.executable, "-m", "diffgap", *arguments],
            cwd=self.root,
            env={**clean, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=230,
        )


def add_schedule(newcomer: Newcomer) -> None:
    path = "bridge/schedules.py"
    newcomer.insert(
        "schedule",
        path,
        "SCHEDULES: dict[str, Schedule]",
        "def halfway(t, one_minus_t):\n    return one_minus_t.log() - t.log()\n\n\n",
    )
    entry = '        Schedule("halfway", halfway),\n'
    newcomer.insert("schedule", path, '        Schedule("edm", edm),\n', entry)


def add_method(newcomer: Newcomer) -> None:
    newcomer.write(
        "method",
        "bridge/flip.py",
        "from diffgap.bridge.siblings import Center\n\n\n"
        "class Flip(Center):\n"
        "    def space(self, vectors, side):\n"
        '        return vectors * self.config.options["sign"] if side else vectors\n',
    )
    newcomer.insert(
        "method",
        "bridge/registry.py",
        "METHODS: dict[str, MethodInfo]",
        "@dataclass(frozen=True)\nclass FlipOptions:\n    sign: float = -1.0\n\n\n",
    )
    newcomer.insert(
        "method",
        "bridge/registry.py",
        '        MethodInfo("center",',
        '        MethodInfo("flip", "Flipped", "diffgap.bridge.flip:Flip", score="cosine",\n'
        "                   reads=(), options=FlipOptions),\n",
    )


def add_metric(newcomer: Newcomer) -> None:
    newcomer.insert(
        "metric", "evaluation/metrics.py", '        MetricInfo("MedR",', "        _recall(20),\n"
    )


def add_table(newcomer: Newcomer) -> None:
    newcomer.write(
        "table",
        "report/tables/signatures.py",
        "from diffgap.report.tables.table import Row, Table, Value\n\n\n"
        "def signature_tables(sweep, references, against=None):\n"
        "    rows = [Row(t.label, (Value(t.signature),)) for t in sweep.trials]\n"
        '    return [Table("signatures", "Signatures", ("signature",), tuple(rows), ())]\n',
    )
    newcomer.insert(
        "table",
        "spec/tables.py",
        '        TableInfo(\n            "ablation",',
        '        TableInfo("signatures", "diffgap.report.tables.signatures:signature_tables"),\n',
    )


def add_setting(newcomer: Newcomer) -> None:
    newcomer.insert(
        "setting",
        "bridge/config.py",
        "    condition_dropout: Share",
        "    label_smoothing: Share = 0.0\n",
    )


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer"))
    for add in (add_schedule, add_method, add_metric, add_table, add_setting):
        add(newcomer)
    with tarfile.open(CARRIED) as archive:
        archive.extractall(newcomer.root, filter="data")
    (newcomer.root / "spec.yaml").write_text(SPEC)
    return newcomer


@pytest.fixture(scope="module")
def swept(newcomer):
    """What the sweep of all five printed."""
    result = newcomer.run("sweep", "spec.yaml")
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def trained(newcomer, swept):
    """config.json of the sweep's trained bridge."""
    for path in newcomer.root.glob("runs/trials/*/bridge/config.json"):
        config = json.loads(path.read_text())
        if config["bridge"]["method"] == "diffgap":
            return config
    raise AssertionError("no trained bridge")


@pytest.mark.parametrize(
    ("task", "files"), [("schedule", 1), ("method", 2), ("metric", 1), ("table", 2), ("setting", 1)]
)
def test_a_task_takes_as_many_files_as_the_docs_say(newcomer, task, files):
    assert len(newcomer.files[task]) == files


def test_a_schedule_trains_and_is_offered(newcomer, trained):
    assert trained["bridge"]["schedule"] == "halfway"
    refused = newcomer.run("sweep", "spec.yaml", "--set", "trial.cdm.schedule=half")
    assert refused.returncode == 2
    assert "did you mean halfway?" in refused.stderr


def test_a_sibling_has_its_row_and_its_settings(newcomer, swept):
    assert "Flipped" in swept
    bridges = newcomer.root.glob("runs/trials/*/bridge/config.json")
    configs = [json.loads(path.read_text())["bridge"] for path in bridges]
    assert {"sign": -1.0} in [config["options"] for config in configs]


def test_a_sibling_leaves_other_trials_signatures_as_they_are(newcomer):
    """Against a copy with the sibling alone: a setting of the loss is part of every signature."""
    alone = Newcomer(newcomer.root / "alone")
    add_method(alone)
    code = (
        "from diffgap.spec import Trial, signature;"
        "print(signature(Trial(task='text-audio', seed=0), '0' * 64))"
    )
    printed = []
    for root in (ROOT, alone.root):
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(result.stdout)
    assert printed[0] == printed[1]


def test_a_metric_is_a_column_and_is_logged(newcomer, swept):
    assert swept.count("R@20") == 2  # a column in each direction
    for path in newcomer.root.glob("runs/trials/*/bridge/metrics.json"):
        assert "test/text_to_audio/R20" in json.loads(path.read_text())


def test_a_table_is_printed_and_in_the_report(newcomer, swept):
    assert "Signatures" in swept
    report = newcomer.run("report", "newcomer", "--format", "md")
    assert "**Signatures**" in report.stdout


def test_a_setting_comes_from_the_spec_to_the_bridge(newcomer, trained):
    assert trained["bridge"]["objective"]["label_smoothing"] == 0.25
    refused = newcomer.run("sweep", "spec.yaml", "--set", "trial.loss.label_smoothing=1.5")
    assert "trial.loss.label_smoothing" in refused.stderr
    assert "not in [0, 1)" in refused.stderr
