"""Features of one video by TVTSv2_B_16: python feature_extraction_TVTSv2_B_16.py --video_path FILE"""

import sys
from pathlib import Path

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.feature_extraction import main

if __name__ == "__main__":
    sys.exit(main(arch="TVTSv2_B_16"))
