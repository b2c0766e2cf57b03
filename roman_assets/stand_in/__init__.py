"""A microlensing pipeline that stands in for the SSC's own: an outside command (R12).

It knows what the SSC knows: a manifest, the public archive, CRDS, and the format of a delivery.
"""
