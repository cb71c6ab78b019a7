"""Runs the command line as `python -m kprune`."""

from kprune.cli import app

app(prog_name="kprune")
