"""`python -m procpool`."""

import sys

from procpool.adapters.cli import main

sys.exit(main())
