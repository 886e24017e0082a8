"""`atlaskit run`: notebooks, executed headless."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from atlaskit import runs


@click.command()
@click.argument("names", nargs=-1)
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter; may be repeated.")
@click.option("--model", help="Short for -p model MODEL: a bundled name, a folder, or a hub id.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="runs", show_default=True)
@click.option("--notebooks", type=click.Path(path_type=Path), default="notebooks", show_default=True)
@click.option("--timeout", type=click.IntRange(min=1), default=600, show_default=True, help="Seconds for one cell.")
@click.pass_context
def run(context: click.Context, /, names: tuple[str, ...], given: tuple[tuple[str, str], ...], **options: Any) -> None:
    """Execute notebooks, all or those that NAMES or paths mean, and write a report over them.

    A parameter goes to every notebook that has it. Exit code: 0 all finished, 1 some failed, 2 a wrong request,
    130 stopped by Ctrl-C.
    """
    texts = dict(given) | ({"model": options["model"]} if options["model"] is not None else {})
    chosen = _choose(options["notebooks"], names)
    plan = _plan(chosen, texts)
    code = 0
    try:
        for notebook, parameters in plan.items():
            code = max(code, _run_one(notebook, options["out"], parameters, timeout=options["timeout"]))
    except KeyboardInterrupt:
        click.echo("stopped; what had finished is kept", err=True)
        code = 130
    click.echo(f"report: {runs.report(options['out']).resolve()}")
    context.exit(code)


def _choose(folder: Path, names: Sequence[str]) -> list[Path]:
    """The notebooks meant, by name or path; one mistyped name stops everything before it starts."""
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    paths = {name: Path(name) for name in names if name.endswith(".ipynb") and Path(name).is_file()}
    if not known and len(paths) < max(len(names), 1):
        raise click.UsageError(
            f"no notebooks in {folder.resolve()}; run this where the notebooks/ folder is, or say --notebooks FOLDER"
        )
    wanted = {name: paths.get(name, known.get(name.removesuffix(".ipynb"))) for name in names or known}
    if unknown := [name for name, path in wanted.items() if path is None]:
        raise click.UsageError(f"no notebook named {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = {path.resolve(): path for path in wanted.values() if path is not None}
    if len({path.stem for path in chosen}) < len(chosen):
        raise click.UsageError(f"two of {', '.join(map(str, chosen))} have one name, and would write to one folder")
    return list(chosen.values())


def _plan(notebooks: Sequence[Path], texts: Mapping[str, str]) -> dict[Path, dict[str, Any]]:
    """Parameters for each notebook, all checked, or one usage error that lists every problem."""
    try:
        declared = {notebook: runs.declared_parameters(notebook) for notebook in notebooks}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    everywhere = sorted({name for parameters in declared.values() for name in parameters})
    problems = [_unknown(name, everywhere) for name in texts if name not in everywhere]
    plan = {}
    for notebook, known in declared.items():
        plan[notebook] = runs.parse_parameters(notebook, {name: texts[name] for name in texts if name in known})
        try:
            runs.check_parameters(notebook, plan[notebook])
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise click.UsageError("\n".join(problems))
    return plan


def _unknown(name: str, everywhere: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, everywhere, n=1)
    guess = f"; did you mean {near[0]}?" if near else f"; they have {', '.join(everywhere)}"
    return f"no chosen notebook has a parameter {name}{guess}"


def _run_one(notebook: Path, out: Path, parameters: Mapping[str, Any], *, timeout: int) -> int:
    click.echo(f"{notebook.stem} ...")
    try:
        found = runs.execute(notebook, out, parameters, timeout=timeout)
    except runs.NotebookError as error:
        click.echo(str(error), err=True)
        return 1
    click.echo(f"{notebook.stem} finished with {len(found.findings)} findings")
    return 0
