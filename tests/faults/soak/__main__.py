"""python -m faults.soak"""

import sys

from faults.soak.run import main

if __name__ == "__main__":
    sys.exit(main())
