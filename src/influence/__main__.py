"""`python -m influence`, and the `influence` script."""

from influence.cli.main import run

if __name__ == "__main__":
    run()
