"""Builds the package; everything it says about itself is in `setup.cfg`."""

from setuptools import setup

setup()
