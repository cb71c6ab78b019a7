"""What a model or a training run looks like: tables and plots."""
