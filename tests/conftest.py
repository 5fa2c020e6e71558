import os

# The tests run side by side, one on each core: more threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
