"""Names of dimensions, coordinates and alleles, as users see them in the store."""

EXPOSURE = "exposure"
OUTCOME = "outcome"
SEQUENCE = "sequence"
POSITION = "position"
ALLELE = "allele"
METHOD = "method"

ALLELES = ("A", "C", "G", "T")
UNKNOWN_BASE = "N"
