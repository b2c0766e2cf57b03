"""Reading of ancillary documents: executed visits and MA tables, JSON as `docs/l0.md` says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from roman_assets.errors import BadInputError
from roman_assets.formatting.document import check_size
from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.formatting.ma_table import MATable

MOST_DOCUMENT_BYTES = 1 << 23
AncillaryDocument = Annotated[ExecutedVisit | MATable, Field(discriminator="kind")]
_DOCUMENT: TypeAdapter[ExecutedVisit | MATable] = TypeAdapter(AncillaryDocument)


def read_document(path: Path) -> ExecutedVisit | MATable:
    """Read an executed visit or an MA table.

    Raises
    ------
    BadInputError
        Naming the first field that cannot be used.
    """
    check_size(path, MOST_DOCUMENT_BYTES)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInputError(path, "document", f"not JSON: {error}", "send it again") from error
    return parse_document(content, path)


def parse_document(content: object, source: object) -> ExecutedVisit | MATable:
    """Validate a JSON document; raises `BadInputError` as `read_document` does."""
    try:
        return _DOCUMENT.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "document"
        raise BadInputError(
            source,
            field,
            f"{first['msg']} ({error.error_count()} errors in all)",
            "correct the field as docs/l0.md describes and deliver the file again",
        ) from error


def content_hash(document: ExecutedVisit | MATable) -> str:
    """Return the sha256 of a document's content, whatever its layout in the file."""
    text = json.dumps(document.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
