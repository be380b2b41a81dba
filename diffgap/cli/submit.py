"""`diffgap submit`: a sweep on a Ray cluster, from anywhere that reaches its dashboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from diffgap.cli.options import SETS
from diffgap.errors import UserError

DASHBOARD = "http://127.0.0.1:8265"


@click.command(short_help="Run a sweep as a job of a Ray cluster.")
@click.argument("spec", type=click.Path(path_type=Path))
@SETS
@click.option(
    "--address",
    default=lambda: os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD,
    show_default=f"RAY_API_SERVER_ADDRESS, else {DASHBOARD}",
    help="The cluster's dashboard.",
)
@click.option("--wait", is_flag=True, help="Follow the job, and exit with its exit status.")
@click.option(
    "--output",
    metavar="DIR|URI",
    help="Where results go, as the cluster sees it; default its DIFFGAP_OUTPUT.",
)
@click.option("--fresh", is_flag=True, help="Forget earlier results of these trials.")
@click.option("--max-concurrent", type=click.IntRange(1), help="The most trials at once.")
@click.option("--pip", is_flag=True, help="Install what constraints.txt names on the nodes first.")
@click.option("--image", help="Run in this container image, which has diffgap.")
@click.option(
    "--env", "passed", multiple=True, metavar="NAME", help="Pass on an environment variable."
)
def submit(
    spec: Path,
    sets: tuple[str, ...],
    address: str,
    wait: bool,
    output: str | None,
    fresh: bool,
    max_concurrent: int | None,
    pip: bool,
    image: str | None,
    passed: tuple[str, ...],
) -> None:
    """Run the sweep SPEC as a job of the Ray cluster at --address.

    Sends the working directory, but for stores, outputs, virtual environments and what .gitignore
    names, and prints the job's id. The job goes on when this command ends. Exit status: with
    --wait that of the sweep; 2 where the request was wrong.

    \b
    Examples:
      diffgap submit sweeps/ablation.yaml --address http://head:8265 --wait
      diffgap submit sweeps/ablation.yaml --output s3://bucket/runs --env MLFLOW_TRACKING_URI
      diffgap submit sweeps/ablation.yaml --set seeds=5 --pip
    """
    from diffgap.cluster import submit as module
    from diffgap.spec import load_sweep

    folder = Path.cwd()
    load_sweep(spec, sets, known_stores=_problem_there)
    _check(spec, folder, output)
    words = ["sweep", spec.resolve().relative_to(folder.resolve()).as_posix()]
    words += [word for value in sets for word in ("--set", value)]
    words += ["--output", output] if output else []
    words += ["--fresh"] if fresh else []
    words += ["--max-concurrent", str(max_concurrent)] if max_concurrent else []
    environment = module.runtime_environment(folder, pip, image, passed)
    job = module.submit(address, words, folder, environment)
    click.echo(job.job)
    click.echo(
        f"Follow it: ray job logs --follow {job.job} --address {address}\n"
        f"Stop it:   ray job stop {job.job} --address {address} (the same submit goes on)",
        err=True,
    )
    if wait:
        sys.exit(job.follow(lambda text: click.echo(text, nl=False)))


def _check(spec: Path, folder: Path, output: str | None) -> None:
    """What the working directory's copy would not have, or would lose."""
    problems = []
    if not spec.resolve().is_relative_to(folder.resolve()):
        problems.append(f"SPEC: {spec} is not in {folder}, which is sent; go to where it is")
    if output and "://" not in output and not Path(output).is_absolute():
        problems.append(
            f"--output {output}: a job runs in a copy of this directory that Ray removes; "
            "give an absolute path of the cluster, or a URI such as s3://bucket/runs"
        )
    if problems:
        raise UserError(*problems)


def _problem_there(store: str) -> str | None:
    """Why a store cannot be had on the cluster, as far as one can tell from here."""
    from diffgap.corpora import BUILTIN
    from diffgap.encoders.builtin import store_problem

    if store in BUILTIN or "://" in store or Path(store).is_absolute():
        return None
    if problem := store_problem(store):
        return problem
    return (
        f"{store!r} is a folder here, which is not sent; put it where the nodes see it, and give "
        "its absolute path or URI"
    )
