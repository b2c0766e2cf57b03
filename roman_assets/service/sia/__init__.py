"""SIA 2.0: images by position, band, time and the like, as ObsCore describes them."""
