"""The programs of espwire-compat."""
