"""`python -m unibrain` is `unibrain`."""

import sys

from unibrain.cli.main import main

sys.exit(main())
