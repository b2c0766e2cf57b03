"""What the fork server loads once, so that every worker starts with romancal in memory.

Importing this module is the whole of its use. The collector is frozen afterwards: stpipe collects
garbage at each of its steps, and would otherwise walk through all that was loaded here each time
and write to the pages that the workers share.
"""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

# numerical libraries read this when they are loaded, below
os.environ.setdefault("OMP_NUM_THREADS", "1")

import asdf
import astropy.nddata
import astropy.visualization  # noqa: F401
import crds.roman  # noqa: F401
import pandas  # noqa: F401
import PIL.Image  # noqa: F401
import romancal.associations.asn_from_list
import romancal.pipeline  # noqa: F401
import skimage.measure  # noqa: F401
import stpreview.image  # noqa: F401
from roman_datamodels import datamodels

import roman_assets.calibration.common_pointing
import roman_assets.calibration.detector
import roman_assets.mosaic.skycell  # noqa: F401
from roman_assets.acceleration.accelerations import available
from roman_assets.acceleration.installed import InstalledAccelerations, acceleration_wanted

LOADED_BY = os.getpid()
"""The process that paid for the imports: in a warm worker, not the worker itself."""

# the default, a page of 4 kB, makes asdf put compressed blocks together from thousands of pieces
asdf.get_config().io_block_size = 2**20

ACCELERATIONS = InstalledAccelerations(available)
"""The upstream functions that this process replaces by faster ones."""


def _load_schemas() -> None:
    """Write and read models once: asdf loads extensions and schemas at first use."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.asdf"
        for model in (datamodels.ScienceRawModel, datamodels.ImageModel):
            model.create_fake_data().save(path)
            datamodels.open(path).close()


if acceleration_wanted():
    ACCELERATIONS.install()
_load_schemas()
gc.collect()
gc.freeze()
