"""`python -m hubgate` is `hubgate`."""

import sys

from hubgate.ops.cli import main

if __name__ == "__main__":
    sys.exit(main())
