"""The commands of the `ota` group, one module each."""
