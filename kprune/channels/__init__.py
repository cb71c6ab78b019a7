"""The channels of a model: which of them go together, and which must stay."""
