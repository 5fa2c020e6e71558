import os
import sys
from pathlib import Path

# The tests run side by side, one on each core: more threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parent.parent))
