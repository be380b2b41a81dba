"""The spec that docs/deepspeed.md shows is one."""

import textwrap
from pathlib import Path

from diffgap.spec import load_sweep

PAGE = Path(__file__).parents[2] / "docs" / "deepspeed.md"


def test_the_example_for_several_machines_is_a_spec(tmp_path):
    _, after = PAGE.read_text().split("    # diffgap sweep large.yaml", 1)
    lines = after.splitlines()[1:]
    block = lines[: lines.index("")]
    (tmp_path / "spec.yaml").write_text(textwrap.dedent("\n".join(block)))
    spec = load_sweep(tmp_path / "spec.yaml")
    assert spec.resources.workers == 16
    assert spec.resources.environment == {"NCCL_SOCKET_IFNAME": "eth0", "NCCL_DEBUG": "WARN"}
