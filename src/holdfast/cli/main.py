"""The root command, and the one place where failures become a line and an exit code."""

import os
import sys
import traceback
from typing import NoReturn

import click

import holdfast
from holdfast.cli.groups import LazyGroup
from holdfast.errors import HoldfastError

INTERRUPTED = 130
COMPLETION_VARIABLE = "_HOLDFAST_COMPLETE"
# numpy's OpenBLAS starts threads as it is imported, which spin for 0.1 s of processor each, beside what is at work. But
# for models that are run, nothing here multiplies matrices
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
MULTIPLYING = frozenset({"equivalence"})

COMMANDS = {
    "check": ("holdfast.cli.check", "Find references to what is not canonical, each with the right name."),
    "code": ("holdfast.cli.code", "See which module is canonical, and archive the others."),
    "completion": ("holdfast.cli.completion", "Print the completion script for a shell."),
    "dedup": ("holdfast.cli.dedup", "Find what is stored twice, and replace copies by links."),
    "diff": ("holdfast.cli.diff", "Say how two checkpoints differ, in words, in figures and in bytes."),
    "doctor": ("holdfast.cli.doctor", "Check the installation and the repository, and say what mends each fault."),
    "equivalence": ("holdfast.cli.equivalence", "Run two models on the same samples and compare what they give."),
    "fetch": ("holdfast.cli.transfer:fetch", "Bring objects from the vault into DVC's cache."),
    "gc": ("holdfast.cli.gc", "See what may be deleted, and why; take it away, and bring it back."),
    "init": ("holdfast.cli.init", "Prepare a git repository for Holdfast."),
    "pull": ("holdfast.cli.transfer:pull", "Bring objects from the vault and check them out."),
    "push": ("holdfast.cli.transfer:push", "Send cached objects to the vault."),
    "query": ("holdfast.cli.query", "Ask an inventory in SQL."),
    "refs": ("holdfast.cli.refs", "Show which scripts, notebooks and configurations refer to files."),
    "registry": ("holdfast.cli.registry", "Register versions of models; see, move and undo what is in use."),
    "remote": ("holdfast.cli.remote", "Set up where data and models are kept, and see how it fares."),
    "report": ("holdfast.cli.report", "Write reports of what was found."),
    "runs": ("holdfast.cli.runs", "List and check the folders of training runs."),
    "scan": ("holdfast.cli.scan", "List the model files of a tree, what they are and who uses them."),
    "schema": (
        "holdfast.cli.schema",
        "Print the JSON Schema of what a command prints with --json; without COMMAND, list the commands that have one.",
    ),
    "serve": ("holdfast.cli.serve", "Serve a vault to plain DVC, as an HTTP remote."),
    "show": ("holdfast.cli.show", "Show what a checkpoint holds, without running anything in it."),
    "status": ("holdfast.cli.transfer:status", "Compare DVC's cache with the vault."),
    "ui": ("holdfast.cli.ui", "Show the report of this repository in a browser, as it changes."),
    "version": ("holdfast.cli.version", "Print the version."),
    "sources": (
        "holdfast.cli.sources",
        "Keep the catalogue of data sources: what there is, whether it is there, and how it comes here.",
    ),
    "vault": ("holdfast.cli.vault", "Make a vault, and look after it."),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 partly done, 10 no repository, 11 locked, 12 gate refused, "
    "13 integrity, 14 stale plan, 130 interrupted.",
)
@click.version_option(holdfast.__version__, "--version", prog_name="holdfast")
@click.option("--cd", "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False), help="Run in DIR.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def root(folder: str | None, verbose: bool) -> None:  # noqa: ARG001 - `verbose` is read where errors are shown
    """Keep every model version, know which one is canonical, pay for no duplicate."""
    if folder is not None:
        os.chdir(folder)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the table in ``holdfast --help``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if MULTIPLYING.isdisjoint(arguments):
        os.environ.setdefault(BLAS_THREADS, "1")
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    if COMPLETION_VARIABLE in os.environ:
        root.main(prog_name="holdfast", complete_var=COMPLETION_VARIABLE)  # answers the shell and exits
    try:
        # not root.main(): it would end a closed pipe with 1, and show its errors in its own form
        with root.make_context("holdfast", list(arguments)) as context:
            result = root.invoke(context)
        if sys.stdout is not None:  # it is None where the shell closed it
            sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # the help of a noun without a verb, or of holdfast itself
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "holdfast"
        return _fail(f"{error.format_message()} See `{where} --help`", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except HoldfastError as error:
        return _fail(str(error), error.exit_code, arguments)
    except BrokenPipeError:
        # `holdfast … | head` is no failure; without a place for stdout the interpreter would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _fail(f"{name}{error.strerror or error}", 1, arguments)
    except Exception as error:
        return _fail(f"unexpected {type(error).__name__}: {error}. Run `holdfast -v …` for the traceback", 1, arguments)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int, arguments: list[str] | None = None) -> int:
    if arguments is not None and _verbose(arguments):
        traceback.print_exc()
    name = "holdfast:" if os.environ.get("NO_COLOR") else click.style("holdfast:", fg="red")
    click.echo(f"{name} {' '.join(message.split())}", err=True)
    return code


def _verbose(arguments: list[str]) -> bool:
    return any(argument in ("-v", "--verbose") for argument in arguments)
