"""Microlensing and slitless spectra in the place of the SSC: an outside command (R12).

It knows what the SSC knows: a manifest, the public archive, CRDS, and the format of a delivery.
"""
