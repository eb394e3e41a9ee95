"""`python scripts/plan.py …` in a checkout is `resd plan …`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resd.plan.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
