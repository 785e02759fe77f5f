"""``python -m espwire``: the same as the ``espwire`` program."""

from espwire.cli.main import run

if __name__ == "__main__":
    run()
