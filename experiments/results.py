"""The old name of experiments.store: python -m experiments.results."""

import sys

from experiments.store.__main__ import main
from experiments.support.output import lasting_output

if __name__ == "__main__":
    lasting_output()
    if sys.argv[1:2] == ["rebuild"]:
        places = " ".join(sys.argv[2:]) or "runs"
        raise SystemExit(
            "error: there is no index to build any more, the files themselves are asked: "
            f"python -m experiments.store list --runs {places}"
        )
    raise SystemExit(main())
