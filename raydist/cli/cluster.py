"""The verbs about clusters: pipeline, submit, jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from raydist.cli.common import Resolve, as_json, cli, print_json, settings
from raydist.cli.ordered import STEPS, order_of
from raydist.errors import INTERRUPTED, UsageError
from raydist.progress import talk

if TYPE_CHECKING:
    from raydist.records import Report

_address = click.option(
    "--address",
    metavar="URL",
    help="The cluster's job server, such as http://head:8265. [default: RAY_API_SERVER_ADDRESS]",
)


@cli.command()
@click.argument("inputs", nargs=-1, metavar="[VIDEO_OR_FOLDER]...")
@click.option("--from", "listed", metavar="PATH", help="Captions that there are, as for `raydist caption`.")
@click.option(
    "--provider", type=click.Choice(["gemini", "openai", "local"]), help="Let a model caption what has no caption."
)
@click.option("--model", metavar="M", help="The base model. [default: the archive's, else viclip-b16]")
@click.option("--run", metavar="NAME", default="lora", show_default=True, help="Name of the training run and adapter.")
@click.option("--steps", metavar="STEP,...", default=",".join(STEPS), show_default=True, help="Only these.")
@as_json
@settings
def pipeline(
    resolve: Resolve, provider: str | None, model: str | None, steps: str, as_json: bool, **request: Any
) -> None:
    """All stages as one job that goes on where it stopped: scan, caption, train, eval, embed, dedup.

    What the archive has is not done again. Without --from or --provider the captions that there are count; without any,
    the base model embeds. With --json one report a line, that of the whole last.
    """
    from raydist import pipeline as verb

    if provider and request["listed"]:
        raise UsageError("--provider asks a model for captions: leave it out, or --from")
    config = resolve(caption__provider=provider, embed__model=model).config
    chosen = [step.strip() for step in steps.split(",") if step.strip()]
    report, outcome = verb.run(config, verb.Request(steps=chosen, **request), _show(as_json), talk.print)
    _show(as_json)("pipeline", report)
    if outcome.error is not None:
        talk.print(f"error: {outcome.failed}: {outcome.error}", markup=False, style="red")
        raise SystemExit(outcome.error.exit_code)
    if outcome.failed:
        talk.print(f"error: {outcome.failed}: more than max_failed = {config.max_failed:.0%} failed", style="red")
        raise SystemExit(1)


def _show(as_json: bool) -> Callable[[str, Report], None]:
    """Prints each report as its stage does."""

    def show(step: str, report: Report) -> None:
        from raydist import dedup, eval, rendering

        shown: Any = {"eval": eval, "dedup": dedup}.get(step, rendering)
        if as_json:
            print_json([shown.as_json(report)])
        else:
            click.echo(shown.render(report))

    return show


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="VERB [ARGUMENTS]...")
@_address
@click.option("--no-wait", is_flag=True, help="Print the job's id and leave, instead of following its log.")
@click.option("--installed", is_flag=True, help="Run the raydist that the cluster has; do not bring this machine's.")
@click.option("--any-version", is_flag=True, help="Also where the cluster's Ray or Python is another than here.")
@as_json
@settings
def submit(
    resolve: Resolve,
    arguments: tuple[str, ...],
    address: str | None,
    no_wait: bool,
    as_json: bool,
    **kind: bool,
) -> None:
    """Run any verb as a job on a Ray cluster: `raydist submit embed --archive s3://bucket/archive --address URL`.

    The verb takes its own arguments. Its log comes on stderr, its report on stdout; its exit code is this command's.
    Ctrl-C stops following and leaves the job running; `raydist jobs stop ID` ends it, and what is done is kept. Files
    of settings and lists go with the job; videos never do, and neither do keys: the nodes have their own.
    """
    from raydist import submit as verb
    from raydist.submit import client as server

    place = server.address_of(address)
    context = click.get_current_context()
    order = order_of(resolve().config, arguments, context.parent, as_json=as_json, **kind)
    client = server.connect(place, any_version=kind["any_version"])
    job = verb.send(client, place, order)
    with _goes_on(place, job):
        talk.print(f"job {job}: {verb.page(place, job)}")
        if not no_wait:
            _follow(client, place, job)
        elif as_json:
            print_json([{"job": job, "address": place, "dashboard": verb.page(place, job)}])
        else:
            click.echo(job)


@cli.group()
def jobs() -> None:
    """The jobs of a Ray cluster: list, logs, stop."""


@jobs.command("list")
@_address
@as_json
@settings
def list_(resolve: Resolve, address: str | None, as_json: bool) -> None:
    """All jobs, the newest first."""
    from raydist import jobs as verb

    resolve()
    place, client = _client(address)
    rows = verb.listed(client, place)
    if as_json:
        print_json(rows)
    else:
        click.echo(verb.render(rows))


@jobs.command()
@click.argument("job", metavar="ID")
@click.option("--follow", is_flag=True, help="Go on until the job ends, and end with its exit code.")
@_address
@as_json
@settings
def logs(resolve: Resolve, job: str, follow: bool, address: str | None, as_json: bool) -> None:
    """What a job said: its data on stdout, its talk on stderr. --json: both on stdout, an object a line."""
    from raydist.submit.client import errors
    from raydist.submit.marks import Told

    resolve()
    place, client = _client(address)
    if follow:
        _follow(client, place, job, as_json=as_json)
        return
    with errors(place, job):
        text = client.get_job_logs(job)
    told = Told()
    for is_data, line in [*told.feed(text), *told.rest()]:
        _shown(job, is_data, line, as_json)


@jobs.command()
@click.argument("job", metavar="ID")
@_address
@as_json
@settings
def stop(resolve: Resolve, job: str, address: str | None, as_json: bool) -> None:
    """Stop a job; it commits what is done, and the same command goes on from there."""
    from raydist import jobs as verb

    resolve()
    place, client = _client(address)
    outcome = verb.stop(client, place, job)
    if as_json:
        print_json([outcome])
    elif outcome["stopped"]:
        click.echo(f"{job} is stopped; what was committed is kept")
    else:
        click.echo(f"{job} had ended already ({outcome['status'].lower()})")


def _client(given: str | None) -> tuple[str, Any]:
    from raydist.submit import client as server

    place = server.address_of(given)
    return place, server.connect(place)


def _shown(job: str, is_data: bool, line: str, as_json: bool) -> None:
    if as_json:
        print_json([{"job": job, "stream": "out" if is_data else "err", "line": line}])
    elif is_data:
        click.echo(line)
    else:
        talk.print(line)


@contextmanager
def _goes_on(place: str, job: str) -> Iterator[None]:
    """A Ctrl-C ends this command and not the job."""
    try:
        yield
    except KeyboardInterrupt:
        how = f"--address {place}"
        talk.print(
            f"the job goes on. Follow: `raydist jobs logs {job} --follow {how}`; stop: `raydist jobs stop {job} {how}`"
        )
        raise SystemExit(INTERRUPTED) from None


def _follow(client: Any, place: str, job: str, *, as_json: bool = False) -> None:
    """Show a job's log until it ends, and end as it ended."""
    with _goes_on(place, job):
        from raydist.submit.follow import follow

        ended = follow(
            client,
            place,
            job,
            data=lambda line: _shown(job, True, line, as_json),
            talk=lambda line: _shown(job, False, line, as_json),
        )
    if ended.status == "STOPPED":
        talk.print(f"{job} was stopped; what was committed is kept, and the same command goes on from there")
    elif ended.code > 128:
        talk.print(
            f"{job}: its driver was killed by signal {ended.code - 128}; what was committed is kept, and the same "
            "command goes on from there"
        )
    elif ended.message:
        talk.print(f"{job} {ended.status.lower()}: {ended.message}")
    if ended.code:
        raise SystemExit(ended.code)
