"""`atlaskit info`: what is installed, and which models need no network."""

from __future__ import annotations

import platform

import click
import torch

from atlaskit import runs


@click.command()
def info() -> None:
    """Print versions, the device, and the models that need no network."""
    from atlaskit import models  # here, because it brings all of transformers

    for name, version in runs.versions().items():
        click.echo(f"{name:14}{version}")
    click.echo(f"{'platform':14}{platform.platform()}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    click.echo(f"{'device':14}{device}")
    click.echo("models that need no network")
    for name, what in models.available().items():
        click.echo(f"  {name:18}{what}")
