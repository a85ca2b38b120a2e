"""The old name of experiments.store: python -m experiments.results."""

from experiments.store.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
