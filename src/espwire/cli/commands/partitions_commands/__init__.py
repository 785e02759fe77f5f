"""The commands of the `partitions` group, one module each."""
