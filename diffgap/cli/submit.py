"""Command that submits a sweep to a Ray cluster, from anywhere that reaches its dashboard."""

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
    help="URL of the cluster's dashboard.",
)
@click.option("--wait", is_flag=True, help="Follow the job and exit with its status.")
@click.option(
    "--output",
    metavar="DIR|URI",
    help="Where results go, as the cluster sees it; default its DIFFGAP_OUTPUT.",
)
@click.option("--fresh", is_flag=True, help="Forget earlier results of these trials.")
@click.option("--max-concurrent", type=click.IntRange(1), help="The most trials at once.")
@click.option("--pip", is_flag=True, help="First install constraints.txt on the nodes.")
@click.option("--image", help="Container image of the job; must contain diffgap.")
@click.option(
    "--env", "variables", multiple=True, metavar="NAME", help="Pass on an environment variable."
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
    variables: tuple[str, ...],
) -> None:
    """Run the sweep SPEC as a job of the Ray cluster at --address.

    Sends the working directory, except stores, outputs, virtual environments and what .gitignore
    names, and prints the job's id. The job keeps running when this command ends. Exit status:
    with --wait that of the sweep; 2 if the request was invalid.

    \b
    Examples:
      diffgap submit sweeps/ablation.yaml --address http://head:8265 --wait
      diffgap submit sweeps/ablation.yaml --output s3://bucket/runs --env MLFLOW_TRACKING_URI
      diffgap submit sweeps/ablation.yaml --set seeds=5 --pip
    """
    from diffgap.cluster import submit as module
    from diffgap.spec import load_sweep

    folder = Path.cwd()
    load_sweep(spec, sets, known_stores=_store_problem)
    _check(spec, folder, output)
    arguments = ["sweep", spec.resolve().relative_to(folder.resolve()).as_posix()]
    for value in sets:
        arguments += ["--set", value]
    if output:
        arguments += ["--output", output]
    if fresh:
        arguments += ["--fresh"]
    if max_concurrent:
        arguments += ["--max-concurrent", str(max_concurrent)]
    environment = module.runtime_environment(folder, pip, image, variables)
    job = module.submit(address, arguments, folder, environment)
    click.echo(job.job_id)
    click.echo(
        f"Follow it: ray job logs --follow {job.job_id} --address {address}\n"
        f"Stop it:   ray job stop {job.job_id} --address {address} (the same submit resumes it)",
        err=True,
    )
    if wait:
        sys.exit(job.follow(lambda text: click.echo(text, nl=False)))


def _check(spec: Path, folder: Path, output: str | None) -> None:
    """Refuses what the copy of the working directory would lack, or would lose."""
    problems = []
    if not spec.resolve().is_relative_to(folder.resolve()):
        where = f"not in {folder}, the directory that is sent"
        problems.append(f"SPEC: {spec} is {where}; run this from its own")
    if output and "://" not in output and not Path(output).is_absolute():
        problems.append(
            f"--output {output}: a job runs in a copy of this directory, which Ray removes; "
            "give an absolute path on the cluster, or a URI such as s3://bucket/runs"
        )
    if problems:
        raise UserError(*problems)


def _store_problem(store: str) -> str | None:
    """Why a store will be missing on the cluster, as far as can be told from here."""
    from diffgap.corpora import BUILTIN
    from diffgap.encoders.builtin import store_problem

    if store in BUILTIN or "://" in store or Path(store).is_absolute():
        return None
    return store_problem(store) or (
        f"{store!r} is a local folder, which is not sent; put it where the nodes can read it, and "
        "give its absolute path or URI"
    )
