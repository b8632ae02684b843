"""The command line. Heavy imports happen inside commands: ``raygrow --help`` answers at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from raygrow import __version__
from raygrow.errors import CampaignFailed, RaygrowError
from raygrow.progress import LogFormat, json_line

DONE, REFUSED, FAILED, INTERRUPTED = 0, 2, 3, 130
F = TypeVar("F", bound=Callable[..., Any])


class _Commands(click.Group):
    """Commands in the order of use; an unknown one is refused with the list of what exists."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"no such command {args[0]!r}; commands: {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


def _guarded(command: F) -> F:
    """Errors as one line on standard error, in the format of the logs, and the exit code of the contract."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except RaygrowError as error:
            if os.environ.get("RAYGROW_DEBUG"):
                raise
            _fail(str(error), FAILED if isinstance(error, CampaignFailed) else REFUSED, kwargs.get("log_format"))
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Interrupted":
                sys.exit(INTERRUPTED)
            if isinstance(error, SystemExit | BrokenPipeError) or os.environ.get("RAYGROW_DEBUG"):
                raise
            _fail(f"{type(error).__name__}: {error} (RAYGROW_DEBUG=1 shows where)", FAILED, kwargs.get("log_format"))

    return guarded  # type: ignore[return-value]


def _fail(message: str, code: int, form: LogFormat | None) -> None:
    line = " ".join(message.split())
    if form == "json":
        click.echo(json_line("refused" if code == REFUSED else "failed", "error", message=line), err=True)
    else:
        click.echo(f"raygrow: {line}", err=True)
    sys.exit(code)


SET = click.option(
    "--set", "assignments", multiple=True, metavar="KEY.PATH=VALUE",
    help="Override a key of the file, for example --set campaign.seed=3; may be repeated.",
)  # fmt: skip
POOL = click.option("--pool", type=click.Choice(["ray", "serial"]), help="Where the work runs, instead of `pool.kind`.")
ADDRESS = click.option("--address", help="Address of a running Ray cluster, for example auto or ray://host:10001.")
LOG_FORMAT = click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="Of the log on standard error: text for people, or one JSON object a line.",
)  # fmt: skip
DIR = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
CONFIG = click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="raygrow")
def main() -> None:
    """Grow neural networks from a linear model, in populations.

    Each member grows one network with its own addition strategy; candidate moves are probed beside a control that does
    not grow, and growth is granted by validation gain per added FLOP.

    \b
    raygrow run configs/lorenz96.yaml       grow a population
    raygrow lineage runs/NAME               which network came from which, at what gain
    raygrow predict runs/NAME --data x.parquet --output y.parquet
    """


@main.command()
@CONFIG
@SET
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the campaign; new or empty. Default runs/NAME-TIME."
)
@POOL
@ADDRESS
@LOG_FORMAT
@_guarded
def run(
    config: Path,
    assignments: tuple[str, ...],
    out: Path | None,
    pool: str | None,
    address: str | None,
    log_format: LogFormat,
) -> None:
    """Grow the population that the YAML file CONFIG describes."""
    from raygrow.adapters.ray_start import ahead
    from raygrow.document import local_pool, parse_assignments, read_document
    from raygrow.process import imports

    document = read_document(config, {**parse_assignments(assignments), **({"pool.kind": pool} if pool else {})})
    # Ray takes seconds to come up, and torch to be imported.
    with ahead(*local_pool(document), address):
        with imports():
            from raygrow.app import run as run_campaign
        result = run_campaign(document, out=out, address=address, log_format=log_format)
    from raygrow.report import summary_text

    click.echo(summary_text(dict(result.summary)))
    click.echo(f"report: {result.folder / 'report.html'}")


@main.command()
@DIR
@SET
@POOL
@ADDRESS
@LOG_FORMAT
@_guarded
def resume(
    folder: Path, assignments: tuple[str, ...], pool: str | None, address: str | None, log_format: LogFormat
) -> None:
    """Go on with the interrupted campaign in DIR; a finished one prints its summary."""
    from raygrow.process import imports

    with imports():
        from raygrow.app import resume as resume_campaign
        from raygrow.document import parse_assignments
        from raygrow.report import summary_text

    overrides = parse_assignments(assignments)
    result = resume_campaign(folder, overrides, pool=pool, address=address, log_format=log_format)
    click.echo(summary_text(dict(result.summary)))


@main.command()
@CONFIG
@SET
@_guarded
def validate(config: Path, assignments: tuple[str, ...]) -> None:
    """Check CONFIG and its data, and say what it would do. Runs and creates nothing."""
    from raygrow.app import prepare_campaign
    from raygrow.comparison_config import build_comparison, is_comparison
    from raygrow.config import build_plan
    from raygrow.document import parse_assignments, read_document
    from raygrow.validate import describe_campaign, describe_comparison

    document = read_document(config, parse_assignments(assignments))
    if is_comparison(document):
        click.echo(describe_comparison(build_comparison(document)))
    else:
        click.echo(describe_campaign(prepare_campaign(build_plan(document))))


@main.command()
@CONFIG
@SET
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Folder of the comparison: new, empty, or with this comparison, which then goes on. Default runs/NAME-TIME.",
)  # fmt: skip
@ADDRESS
@LOG_FORMAT
@_guarded
def compare(
    config: Path, assignments: tuple[str, ...], out: Path | None, address: str | None, log_format: LogFormat
) -> None:
    """Compare the arms of CONFIG on the same data sets and seeds: strategies, initializers, any key, baselines."""
    from raygrow.process import imports

    with imports():
        from raygrow.comparing import compare as run_comparison
        from raygrow.document import parse_assignments
        from raygrow.report.standings import calibration_text, comparison_text

    compared = run_comparison(config, parse_assignments(assignments), out=out, address=address, log_format=log_format)
    click.echo(comparison_text(compared.plan, compared.trials))
    if compared.calibration is not None:
        click.echo(f"\n{calibration_text(compared.calibration)}\n")
    click.echo(f"report: {compared.folder / 'report.html'}")
    if compared.trouble:
        named = "; ".join(
            f"{row['status']} {row['arm']}/{row['data']}-{row['seed']}: {row['reason']}" for row in compared.trouble[:3]
        )
        more = f"; and {len(compared.trouble) - 3} more" if compared.trouble[3:] else ""
        _fail(
            f"{len(compared.trouble)} of {len(compared.trials)} trials came to no end: {named}{more}",
            FAILED,
            log_format,
        )


@main.command()
@DIR
@click.option("--member", help="Only this member.")
@click.option(
    "--format", "form", type=click.Choice(["tree", "json", "svg", "dot"]), default="tree", show_default=True,
    help="tree for people, json for scripts, svg for a page, dot for Graphviz.",
)  # fmt: skip
@_guarded
def lineage(folder: Path, member: str | None, form: str) -> None:
    """Show which architecture came from which, by which move, at what gain and price."""
    from raygrow.population.folder import CampaignFolder
    from raygrow.population.lineage import lineage as read_lineage
    from raygrow.report import lineage_dot, lineage_json, lineage_svg, lineage_text

    home = CampaignFolder(folder)
    home.refuse_if_absent()
    nodes = read_lineage(home.ledger.read())
    draw = {"tree": lineage_text, "svg": lineage_svg, "dot": lineage_dot}
    click.echo(json.dumps(lineage_json(nodes, member), indent=2) if form == "json" else draw[form](nodes, member))


@main.command()
@DIR
@_guarded
def report(folder: Path) -> None:
    """(Re)build what follows from the ledger of DIR: tables, report.html and its figures."""
    from raygrow.app import rebuild

    if (folder / "comparison.yaml").exists():
        from raygrow.comparing import rebuild_comparison

        click.echo(f"report: {rebuild_comparison(folder).folder / 'report.html'}")
        return
    click.echo(f"report: {rebuild(folder).folder / 'report.html'}")


@main.command()
@DIR
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Parquet file, folder of them, or CSV.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Parquet file to write; new.")
@click.option("--member", help="The last network of this member. Default: the best of the campaign.")
@click.option("--arch", help="The last network with this architecture id.")
@click.option("--checkpoint", help="The network with this digest.")
@_guarded
def predict(
    folder: Path, data: Path, output: Path, member: str | None, arch: str | None, checkpoint: str | None
) -> None:
    """Predict the rows of a file with a network of the campaign in DIR."""
    from raygrow.population.folder import CampaignFolder
    from raygrow.predict import choose_checkpoint, predict_file

    home = CampaignFolder(folder)
    rows = predict_file(home, choose_checkpoint(home, member, arch, checkpoint), data, output)
    click.echo(f"{rows} rows written to {output}")


@main.command()
@_guarded
def strategies() -> None:
    """List every strategy, initializer, selection rule and data kind, with its parameters."""
    from raygrow.config import FAMILIES, fields_of, kind_name

    for family, (_, members) in FAMILIES.items():
        click.echo(click.style(f"{family}:", bold=True))
        for cls in members:
            click.echo(f"  {kind_name(cls)}: {(cls.__doc__ or '').strip().splitlines()[0]}")
            for name, default, description in fields_of(cls):
                click.echo(f"      {name} = {default!r}  {' '.join(description.split())}")


if __name__ == "__main__":
    main()
