"""Scopes: which units compete with each other for survival."""

from kprune.scopes.base import Contender, Scope, zeros_wanted
from kprune.scopes.layer_wise import ERK, ErdosRenyi, LayerWise, OutputWise
from kprune.scopes.per_layer import PerLayer
from kprune.scopes.sparing import Sparing
from kprune.scopes.tied import as_one, tied_groups
from kprune.scopes.together import Global, Threshold

__all__ = [
    "ERK",
    "Contender",
    "ErdosRenyi",
    "Global",
    "LayerWise",
    "OutputWise",
    "PerLayer",
    "Scope",
    "Sparing",
    "Threshold",
    "as_one",
    "tied_groups",
    "zeros_wanted",
]
