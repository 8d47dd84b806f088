"""`python -m servemark.adapters.sim`: see serving.py."""

import sys

from servemark.adapters.sim.serving import main

sys.exit(main())
