"""The chips: data files, the dataclasses they are loaded into, and lookups by name or number."""
