"""``python -m roman_assets.simulation.ssc``: the command for the rows of ``ssc.toml``."""

from __future__ import annotations

import os
import sys

from roman_assets.errors import BadInputError, PlatformError
from roman_assets.simulation.ssc.program import run

if __name__ == "__main__":
    try:
        run()
    except PlatformError as error:
        sys.stderr.write(f"roman_assets.simulation.ssc: {error}\n")
        sys.exit(os.EX_DATAERR if isinstance(error, BadInputError) else os.EX_TEMPFAIL)
