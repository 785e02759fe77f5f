"""The language of the loaders, as pure functions and values. No ports, no clocks, no chips by name."""
