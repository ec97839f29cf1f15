"""Breaks a whole service on purpose, many times: `python -m tests.faults --schedules 100 --database sqlite`.

`make faults` runs it. The last line is JSON: schedules, histories, violations, faults by kind.
"""

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

from tests.faults.campaign import Report, run


def main() -> None:
    """Run the schedules of consecutive seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=20, help="how many, of about twenty jobs each")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("api.dispatch").setLevel(logging.ERROR)  # that Redis is away is no news here
    seeds = range(options.first_seed, options.first_seed + options.schedules)
    report = Report()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    for report in run(options.database, seeds, folder):
        print(f"{report.schedules} schedules, {report.histories} histories, {len(report.violations)} violations")
        sys.stdout.flush()
    for wrong in report.violations:
        print(wrong)
    print(json.dumps({**vars(report), "violations": len(report.violations), "database": options.database}))
    sys.exit(bool(report.violations))


if __name__ == "__main__":
    main()
