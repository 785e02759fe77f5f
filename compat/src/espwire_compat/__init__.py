"""The programs of espwire-compat, and what keeps their files from hiding modules of the same names."""
