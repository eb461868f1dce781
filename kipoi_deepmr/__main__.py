"""``python -m kipoi_deepmr``."""

import sys

from kipoi_deepmr.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m kipoi_deepmr"))
