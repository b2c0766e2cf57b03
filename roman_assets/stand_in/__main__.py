"""``python -m roman_assets.stand_in``: the command for the rows of ``ssc.toml``."""

from __future__ import annotations

import sys

from roman_assets.errors import PlatformError
from roman_assets.stand_in.program import run

if __name__ == "__main__":
    try:
        run()
    except PlatformError as error:
        sys.exit(f"roman_assets.stand_in: {error}")
