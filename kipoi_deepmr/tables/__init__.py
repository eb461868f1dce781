"""Results as tables: tidy, for a terminal, and under the names that R packages read."""

from kipoi_deepmr.tables.terminal import terminal_table
from kipoi_deepmr.tables.tidy import global_table, local_table

__all__ = ["global_table", "local_table", "terminal_table"]
