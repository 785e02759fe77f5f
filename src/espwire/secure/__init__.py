"""Signing, encrypting, keys. The only place that names `cryptography`, and only inside functions."""
