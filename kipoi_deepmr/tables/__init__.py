"""Results as tables: tidy, for a terminal, and under the names that R packages read."""

from kipoi_deepmr.tables.metafor import global_results
from kipoi_deepmr.tables.terminal import terminal_table
from kipoi_deepmr.tables.tidy import global_records, global_table, local_table
from kipoi_deepmr.tables.twosamplemr import VariantTables, local_results, variant_tables

__all__ = [
    "VariantTables",
    "global_records",
    "global_results",
    "global_table",
    "local_results",
    "local_table",
    "terminal_table",
    "variant_tables",
]
