"""Makes this folder's shared toys importable, whatever the way pytest was started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
