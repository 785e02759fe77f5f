"""One module per command of ``espwire virtual``, imported when it is run."""
