"""python -m faults.sweep"""

import os
import sys

# Before numpy and torch are imported: a process that forks may have no thread but its own.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

from faults.sweep.run import main

if __name__ == "__main__":
    sys.exit(main())
