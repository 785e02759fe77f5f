"""The commands of the `image` group, one module each."""
