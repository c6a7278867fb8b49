"""`python -m potgan VERB`: the command line."""

import sys

from potgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
