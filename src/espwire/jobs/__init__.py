"""Jobs: a list of steps in a file, carried out on one board after another, with data per board and a report."""
