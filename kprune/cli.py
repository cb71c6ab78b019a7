"""The command line: `kprune demo`, `kprune summary` and `kprune export`."""

import contextlib
import warnings
from pathlib import Path
from typing import Annotated

import keras
import typer

import kprune
from kprune import datasets
from kprune.demo import run_demo

app = typer.Typer(
    help="Prunes Keras models: masks while training, strip, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_Model = Annotated[Path, typer.Argument(metavar="FILE.keras", help="A saved model.")]


@contextlib.contextmanager
def _plain_errors():
    """Turns an error that has a remedy in its message into that message alone."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def _load(file):
    try:
        return keras.saving.load_model(file, compile=False)
    except KeyError as error:
        raise ValueError(f"{file} holds no Keras model: it has no {error}.") from error


def _print_version(wanted: bool):
    if wanted:
        typer.echo(f"kprune {kprune.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and stop.",
        ),
    ] = False,
):
    pass


@app.command()
@_plain_errors()
def demo(
    dataset: Annotated[
        str, typer.Option(help=f"One of {', '.join(datasets.names())}.")
    ] = "digits",
    sparsity: Annotated[
        float, typer.Option(help="Fraction of zeros to reach, in [0, 1).")
    ] = 0.9,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs before pruning, and again with it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for models and plots.")] = Path(
        "kprune-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of weights and data order.")] = 0,
):
    """Train, prune and export a small CNN on real data, and compare."""
    run_demo(dataset, sparsity=sparsity, epochs=epochs, out=out, seed=seed)


@app.command()
@_plain_errors()
def summary(file: _Model):
    """Print how sparse each weight of a saved model is."""
    kprune.summary(_load(file), print_fn=typer.echo)


@app.command()
@_plain_errors()
def export(
    file: _Model,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")],
):
    """Write a saved model as SavedModel and TFLite file, checked."""
    model = _load(file)
    with warnings.catch_warnings():
        # That it was stripped stands in the report as well.
        warnings.filterwarnings("ignore", message="kprune.export: .*strip")
        report = kprune.export(model, directory)
    typer.echo(str(report))
