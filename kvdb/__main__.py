"""`python -m kvdb` starts a server."""

import sys

from kvdb.cli import main

sys.exit(main())
