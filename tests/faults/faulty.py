"""Runs a worker or an API process that can go wrong: `python -m tests.faults.faulty worker|api`.

Beside the fail-points it differs from the real process only in its runner, whose experiment is cheap.
"""

import sys
from pathlib import Path

from tests.faults import claim_log, failpoints


def main() -> None:
    """Install the fail-points, then become the process."""
    failpoints.install()
    if sys.argv[1] == "api":
        run_api()
    else:
        run_worker()


def run_api() -> None:
    """As `uvicorn --factory api.main:app` would."""
    import uvicorn

    from api.settings import Settings

    settings = Settings()
    uvicorn.run("api.main:app", factory=True, host=settings.host, port=settings.port, access_log=False)


def run_worker() -> None:
    """As `python -m worker` would."""
    from worker import fork_server
    from worker.__main__ import main

    claim_log.install()
    fork_server.SERVER = ("-P", str(Path(__file__).with_name("cheap_runner.py")))
    sys.exit(main())


if __name__ == "__main__":
    main()
