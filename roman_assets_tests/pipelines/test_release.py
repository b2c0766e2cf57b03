"""A data release of one survey, from its declaration to its publication, by its rules (R7, R8, R13)."""
