"""``python -m roman_assets.stand_in``: the command for the row of ``ssc.toml``."""

from __future__ import annotations

import sys

from roman_assets.errors import PlatformError
from roman_assets.stand_in.microlensing import run_microlensing

if __name__ == "__main__":
    try:
        run_microlensing()
    except PlatformError as error:
        sys.exit(f"roman_assets.stand_in: {error}")
