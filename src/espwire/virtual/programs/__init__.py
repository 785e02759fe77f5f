"""Programs in the RAM of a virtual chip: models of stubs, and the runner that starts and ends them."""
