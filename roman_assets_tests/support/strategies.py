"""Hypothesis strategies for identities and official names."""

from __future__ import annotations

import functools

from hypothesis import strategies as st

from roman_assets.products.kind import KINDS, ProductKind, Scope
from roman_assets.products.name import (
    DetectorFileSet,
    ExposureFileSet,
    FileSet,
    GroupDetectorFileSet,
    GroupFileSet,
    ProductName,
    SkycellFileSet,
)
from roman_assets.products.observation import DETECTORS, ExposureId, OpticalElement, VisitId

visits = st.builds(
    VisitId,
    st.integers(0, 99999),
    st.integers(0, 99),
    st.integers(0, 999),
    st.integers(0, 999),
    st.integers(0, 999),
    st.integers(0, 999),
)
exposures = st.builds(ExposureId, visits, st.integers(1, 9999))
elements = st.sampled_from(OpticalElement)
groupings = st.one_of(
    visits.map(lambda visit: visit.grouping),
    st.from_regex(r"d\d{8}", fullmatch=True),
    st.from_regex(r"p\d{5}", fullmatch=True),
    st.sampled_from(["full", "user"]),
).map(lambda text: "".join(str(int(c)) if c.isdigit() else c for c in text))
skycells = st.builds(
    "{:03d}{}{:02d}x{:02d}y{:02d}".format,
    st.integers(0, 359),
    st.sampled_from("pm"),
    st.integers(0, 90),
    st.integers(0, 99),
    st.integers(0, 99),
)
releases = st.one_of(st.just("p"), st.integers(0, 30).map("r{}".format))


@functools.cache
def file_sets(scope: Scope) -> st.SearchStrategy[FileSet]:
    """Give file sets of one scope."""
    return {
        Scope.DETECTOR: st.builds(DetectorFileSet, exposures, st.sampled_from(DETECTORS), elements),
        Scope.EXPOSURE: st.builds(ExposureFileSet, exposures, elements),
        Scope.SKYCELL: st.builds(
            SkycellFileSet, st.integers(0, 99999), releases, groupings, skycells, elements
        ),
        Scope.GROUP_DETECTOR: st.builds(
            GroupDetectorFileSet,
            st.integers(0, 99999),
            releases,
            groupings,
            st.sampled_from(DETECTORS),
            elements,
        ),
        Scope.GROUP: st.builds(GroupFileSet, st.integers(0, 99999), releases, groupings, elements),
    }[scope]


@functools.cache
def _named(kind: ProductKind) -> st.SearchStrategy[ProductName]:
    return st.builds(ProductName, file_sets(kind.scope), st.just(kind))


names = st.sampled_from(KINDS).flatmap(_named)
