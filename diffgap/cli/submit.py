"""Command that submits a sweep to a Ray cluster, from anywhere that reaches its dashboard."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import click

from diffgap.cli.boundary import echo
from diffgap.cli.options import SETS
from diffgap.io.printable import log_text

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
    "--env",
    "variables",
    multiple=True,
    metavar="NAME",
    help="Pass on an environment variable; whoever uses the cluster can read it.",
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
    module.check_request(spec, folder, output, pip)
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
    for name in module.exposed(environment):
        echo(f"--env {name}: whoever can use the cluster can read it there, in ps and in the "
                   "dashboard; better give its nodes a secret of their own", err=True)  # fmt: skip
    job = module.submit(address, arguments, folder, environment, partial(echo, err=True))
    echo(job.job_id)
    echo(
        f"Follow it: ray job logs --follow {job.job_id} --address {address}\n"
        f"Stop it:   ray job stop {job.job_id} --address {address} (the same submit resumes it)",
        err=True,
    )
    if wait:
        sys.exit(job.follow(lambda text: echo(log_text(text), nl=False)))


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
