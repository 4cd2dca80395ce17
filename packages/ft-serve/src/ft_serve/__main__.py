"""``python -m ft_serve`` is ``ft-serve``."""

import sys

from ft_serve.console import main

sys.exit(main())
