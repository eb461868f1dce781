"""Files for other programs: tables, tracks and variants of a store."""

from kipoi_deepmr.exports.exporter import FORMATS, export

__all__ = ["FORMATS", "export"]
