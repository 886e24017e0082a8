"""The command line: a thin door over the rooms, and one of the places where they meet. A file holds one command."""

from __future__ import annotations

import click

from .analyze import analyze
from .app import app
from .batch import batch, report
from .compare import compare
from .explore import explore
from .info import info
from .plan import plan
from .run import run
from .survey import survey
from .train import train


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="atlaskit")
def main() -> None:
    """See what attention does inside a transformer, and whether it beats chance."""


main.add_command(run)
main.add_command(batch)
main.add_command(report)
main.add_command(survey)
main.add_command(plan)
main.add_command(analyze)
main.add_command(compare)
main.add_command(explore)
main.add_command(train)
main.add_command(app)
main.add_command(info)
