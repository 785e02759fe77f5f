"""One chip and its loader: connect, identify, move data, reset."""
