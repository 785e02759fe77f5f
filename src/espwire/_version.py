"""The one place that holds the version. Not the place for anything else."""

__version__ = "0.1.0"
